// subbyte quantize, eval, verify: a model to a folder of planes, what it lost, and whether its bytes are whole.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>

#include "commands.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// A line on the terminal that says how far it is and how long it will take.
class Bar {
 public:
  explicit Bar(std::string what) : what_(std::move(what)), began_(seconds()) {}
  void show(double fraction) {
    if (!isatty(2) && fraction < next_) return;
    next_ = fraction + 0.1;
    const double passed = seconds() - began_, left = fraction > 0.01 ? passed / fraction * (1 - fraction) : -1;
    std::string bar(size_t(std::lround(fraction * 30)), '#');
    bar.resize(30, '.');
    std::fprintf(stderr, "%s%-12s [%s] %3d %%  %s%s", isatty(2) ? "\r" : "", what_.c_str(), bar.c_str(), int(fraction * 100),
                 left < 0 ? "…" : (std::to_string(int(left / 60)) + " min " + std::to_string(int(left) % 60) + " s left").c_str(),
                 isatty(2) ? "   \033[K" : "\n");
  }
  void done() const {
    std::fprintf(stderr, "%s%-12s done in %.0f s%s\n", isatty(2) ? "\r\033[K" : "", what_.c_str(), seconds() - began_, "");
  }

 private:
  std::string what_;
  double began_, next_ = 0;
};

/// The folder being written, under a name of its own until it is whole: nothing half-written stands under the name that was asked for.
class PartialFolder {
 public:
  explicit PartialFolder(const fs::path& target) : target_(target), path_(target.string() + ".partial") {
    std::error_code error;
    if (fs::exists(target_, error) && !(fs::is_directory(target_, error) && fs::is_empty(target_, error)))
      throw Failure{"kTargetExists", target_.string() + " is there already", "Remove it, or choose another name."};
    fs::remove_all(path_, error);
    if (!fs::create_directories(path_, error)) fail(path_, error.message());
  }
  ~PartialFolder() {
    files_.clear();
    std::error_code error;
    if (!path_.empty()) fs::remove_all(path_, error);
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  void write(const std::string& name, uint64_t offset, const void* data, uint64_t n_bytes) {
    Descriptor& file = files_[name];
    if (file.number < 0) file.number = ::open((path_ / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (file.number < 0) fail(path_ / name, std::strerror(errno));
    for (uint64_t done = 0; done < n_bytes;) {
      const ssize_t n = ::pwrite(file.number, static_cast<const char*>(data) + done, n_bytes - done, off_t(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail(path_ / name, std::strerror(errno));
      done += uint64_t(n);
    }
  }
  void write_text(const std::string& name, const std::string& text) { write(name, 0, text.data(), text.size()); }
  /// All bytes to the disk, then the name.
  void finish() {
    for (auto& [name, file] : files_) {
      if (::fsync(file.number) != 0) fail(path_ / name, std::strerror(errno));
    }
    files_.clear();
    std::error_code error;
    fs::remove(target_, error);  // an empty folder
    fs::rename(path_, target_, error);
    if (error) fail(target_, error.message());
    path_.clear();
  }
  const fs::path& path() const { return path_; }

 private:
  [[noreturn]] static void fail(const fs::path& file, const std::string& why) {
    throw Failure{"kWriteFailed", "Writing " + file.string() + " failed: " + why,
                  "Make room on the disk or check its permissions; nothing half-written stays."};
  }
  struct Descriptor {
    int number = -1;
    Descriptor() = default;
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
      if (number >= 0) ::close(number);
    }
  };
  fs::path target_, path_;
  std::map<std::string, Descriptor> files_;
};

/// What a source is at a moment: sizes and times of its files.
std::string state_of(const fs::path& source) {
  std::string out;
  std::error_code error;
  auto add = [&](const fs::path& file) {
    out += file.filename().string() + ":" + std::to_string(fs::file_size(file, error)) + ":" +
           std::to_string(fs::last_write_time(file, error).time_since_epoch().count()) + ";";
  };
  if (!fs::is_directory(source, error)) {
    add(source);
  } else {
    for (const auto& entry : fs::directory_iterator(source, error)) {
      if (entry.is_regular_file()) add(entry.path());
    }
  }
  return out;
}

std::string read_texts(const std::vector<std::string>& files) {
  std::string text;
  for (const std::string& file : files) text += read_file(file) + "\n";
  return text;
}

struct EvalArguments {
  std::string model, against;
  std::vector<std::string> texts;
  bool json = false;
  Json engine = Json::object(), eval = Json::object();
};

Json evaluate(sb_model* model, sb_model* reference, const std::string& text, const Json& options) {
  const Evaluation eval(checked(sb_eval_create(model, reference, text.data(), text.size(), request_text(options).c_str())));
  Bar bar("evaluate");
  for (;;) {
    const int32_t more = checked(sb_eval_step(eval.get()));
    const Json report = parsed(sb_eval_report(eval.get()));
    bar.show(report["done_windows"].get<double>() / report["n_windows"].get<double>());
    if (more == SB_STEP_DONE) {
      bar.done();
      return report;
    }
  }
}

uint64_t bytes_on_disk(const fs::path& model) {
  std::error_code error;
  if (!fs::is_directory(model, error)) return uint64_t(fs::file_size(model, error));
  uint64_t n = 0;
  for (const auto& entry : fs::directory_iterator(model, error)) n += entry.is_regular_file() ? uint64_t(entry.file_size()) : 0;
  return n;
}

void print_report(const Json& r) {
  auto number = [&](const char* key) { return r.value(key, 0.0); };
  std::printf("  %lld tokens counted in %d windows\n", (long long)r["n_tokens"].get<int64_t>(), r["n_windows"].get<int>());
  std::printf("  perplexity      %.3f ± %.3f", number("ppl"), number("ppl_se"));
  if (r.contains("kl")) std::printf("   (reference %.3f)", number("ppl_ref"));
  std::printf("\n  next token      %.2f %% right", 100 * number("top1"));
  if (r.contains("kl")) {
    std::printf("   (reference %.2f %%: a relative drop of %.2f ± %.2f %%)\n", 100 * number("top1_ref"), 100 * number("top1_drop"),
                100 * number("top1_drop_se"));
    std::printf("  KL to reference %.4f ± %.4f nats\n  same next token %.2f %%", number("kl"), number("kl_se"), 100 * number("agree"));
  }
  std::printf("\n  %.1f MB of weights: %.3f bits per weight (linears %.3f, embedding %.3f), scales counted\n", number("weight_bytes") / 1e6,
              number("bpw"), number("bpw_linears"), number("bpw_embedding"));
}

void eval(const EvalArguments& a) {
  const std::string text = read_texts(a.texts);
  const Engine engine = open_engine(a.engine);
  const Model model = load_model(engine.get(), a.model, Json::object());
  const Model reference = a.against.empty() ? nullptr : load_model(engine.get(), a.against, Json::object());
  Json report = evaluate(model.get(), reference.get(), text, a.eval);
  report["file_bytes"] = bytes_on_disk(a.model);
  if (a.json) {
    std::printf("%s\n", report.dump().c_str());
  } else {
    std::printf("%s\n", a.model.c_str());
    print_report(report);
  }
}

struct QuantizeArguments {
  std::string source, target, allocation;
  std::vector<std::string> texts;
  int64_t eval_windows = 8;
  bool json = false;
  Json engine = Json::object(), quantize = Json::object();
};

/// The text to calibrate on, and the end of it to measure on, which calibration never sees.
struct Texts {
  std::string calibration, held_out;
};
Texts split_text(const std::string& text) {
  // A twelfth, from a line's begin.
  size_t at = text.size() - text.size() / 12;
  at = std::min(text.find('\n', at), text.size());
  return {text.substr(0, at), text.substr(at)};
}

std::string card_text(const QuantizeArguments& a, const Json& report, const Json& loss) {
  std::string out =
      "# " + fs::path(a.target).filename().string() + "\n\nQuantised by subbyte from `" + fs::path(a.source).filename().string() + "`.\n\n";
  char line[256];
  auto row = [&](const char* what, const std::string& value) {
    std::snprintf(line, sizeof line, "| %s | %s |\n", what, value.c_str());
    out += line;
  };
  auto fixed = [](double v, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, v);
    return std::string(text);
  };
  out += "| | |\n| --- | --- |\n";
  row("weights", fixed(report["weight_bytes"].get<double>() / 1e6, 1) + " MB");
  row("true bits per weight, scales counted",
      fixed(report["bpw"], 3) + " (linears " + fixed(report["bpw_linears"], 3) + ", embedding " + fixed(report["bpw_embedding"], 3) + ")");
  if (!loss.is_null()) {
    row("KL to the source", fixed(loss["kl"], 4) + " ± " + fixed(loss["kl_se"], 4) + " nats a token");
    row("perplexity", fixed(loss["ppl"], 2) + " (source " + fixed(loss["ppl_ref"], 2) + ")");
    row("next token right", fixed(100 * loss["top1"].get<double>(), 2) + " % (source " + fixed(100 * loss["top1_ref"].get<double>(), 2) +
                                " %, a relative drop of " + fixed(100 * loss["top1_drop"].get<double>(), 2) + " ± " +
                                fixed(100 * loss["top1_drop_se"].get<double>(), 2) + " %)");
    row("measured on", std::to_string(loss["n_tokens"].get<int64_t>()) + " tokens of held-out text, " +
                           std::to_string(loss["n_windows"].get<int>()) + " windows");
  }
  out += "\nmodel-card.json has the same for programs, with the format of every matrix.\n";
  if (report["bpw_linears"].get<double>() < 2.6 && report["n_parameters"].get<double>() < 1e9)
    out += "\n**Two bits on a small model lose visibly: expect worse answers than the source gives.**\n";
  return out;
}

void quantize(QuantizeArguments a) {
  if (a.texts.empty()) {
    // The text that comes with the source tree: SUBBYTE_DATA is set by ./dev; your own text, of the kind the model will meet, is better.
    const char* data = std::getenv("SUBBYTE_DATA");
    if (!data)
      throw Failure{"kTextMissing", "There is no calibration text",
                    "Give some with --text FILE: a few hundred kilobytes of what the model will read."};
    a.texts.push_back(std::string(data) + "/calibration.txt");
    std::fprintf(stderr, "Calibrating on the small text that ships; --text with your own is better.\n");
  }
  const Texts texts = split_text(read_texts(a.texts));
  if (!a.allocation.empty()) a.quantize["allocation"] = Json::parse(read_file(a.allocation));
  PartialFolder folder(a.target);
  const Engine engine = open_engine(a.engine);
  const std::string before = state_of(a.source);
  Load load = bring(engine.get(), a.source, Json::object());
  const Quantizer quantizer(checked(sb_quantizer_create(engine.get(), load.release(), texts.calibration.data(), texts.calibration.size(),
                                                        request_text(a.quantize).c_str())));

  for (int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, [](int) { g_interrupted = 1; });
  std::unique_ptr<Bar> bar;
  std::string phase;
  for (;;) {
    const int32_t more = checked(sb_quantizer_step(quantizer.get()));
    sb_write write;
    while (sb_quantizer_write(quantizer.get(), &write)) folder.write(write.file, write.offset, write.data, write.n_bytes);
    const Json progress = parsed(sb_quantizer_progress(quantizer.get()));
    if (progress["phase"] != phase && progress["phase"] != "done") {
      if (bar) bar->done();
      phase = progress["phase"];
      bar = std::make_unique<Bar>(phase);
    }
    if (bar) bar->show(progress["fraction"]);
    if (more == SB_STEP_DONE) break;
    if (g_interrupted) throw Failure{"kInterrupted", "Interrupted", "Nothing half-written stays. Run it again."};
  }
  bar->done();
  if (state_of(a.source) != before)
    throw Failure{"kSourceChanged", a.source + " changed while it was being quantised", "Run it again when nothing writes to it."};
  Json report = parsed(sb_quantizer_report(quantizer.get()));

  // What was lost, on text that calibration did not see; the folder is read as its users will read it.
  Json loss;
  if (a.eval_windows > 0) {
    const Model made = load_model(engine.get(), folder.path().string(), Json::object());
    const Model source = load_model(engine.get(), a.source, Json::object());
    try {
      loss = evaluate(made.get(), source.get(), texts.held_out, {{"windows", a.eval_windows}, {"ctx", a.quantize.value("window", 512)}});
    } catch (const Failure& failure) {
      if (failure.code != "kTextTooShort") throw;
      std::fprintf(stderr, "The text is too short to hold some out: the loss is not measured.\n");
    }
  }
  Json card = {{"source", fs::path(a.source).filename().string()}, {"quantizer", report}};
  if (!loss.is_null()) card["evaluation"] = loss;
  folder.write_text("model-card.json", card.dump(1) + "\n");
  folder.write_text("README.md", card_text(a, report, loss));
  folder.finish();
  if (a.json) {
    report["evaluation"] = loss;
    std::printf("%s\n", report.dump().c_str());
    return;
  }
  std::printf("%s: %.1f MB, %.3f bits per weight (linears %.3f)\n", a.target.c_str(), report["weight_bytes"].get<double>() / 1e6,
              report["bpw"].get<double>(), report["bpw_linears"].get<double>());
  if (!loss.is_null()) print_report(loss);
}

void verify(const std::string& path) {
  const Engine engine = open_engine(Json::object());
  const Load load = bring(engine.get(), path, {{"container", "verify"}});
  const Json progress = parsed(sb_load_progress(load.get()));
  std::printf("%s: %.1f MB, every hash and bound is right\n", path.c_str(), progress["done_bytes"].get<double>() / 1e6);
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto a = std::make_shared<QuantizeArguments>();
  CLI::App* command = app.add_subcommand("quantize", "Make a low-bit folder of a model: calibrates, encodes, measures what was lost");
  command->add_option("SRC", a->source, "A GGUF file or a Hugging Face folder")->required();
  command->add_option("DST", a->target, "The folder to make")->required();
  command->add_option("--text", a->texts, "Text to calibrate on, several files allowed; its last twelfth is kept to measure the loss");
  command->add_option("--allocation", a->allocation, "A file {group: format}, in place of a sensitivity run");
  command->add_option("--eval-windows", a->eval_windows, "Windows of held-out text to measure the loss on; 0 skips it. Default 8");
  command->add_flag("--json", a->json, "The report as JSON");
  add_options(*command, "engine", a->engine);
  add_options(*command, "quantize", a->quantize);
  command->callback([a] { quantize(*a); });
}

void add_eval(CLI::App& app) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "Perplexity, and KL and accuracy against a reference");
  command->add_option("MODEL", a->model, "A GGUF file or a folder")->required();
  command->add_option("--text", a->texts, "Held-out text")->required();
  command->add_option("--against", a->against, "The model that it was made from");
  command->add_flag("--json", a->json, "As JSON");
  add_options(*command, "engine", a->engine);
  add_options(*command, "eval", a->eval);
  command->callback([a] { eval(*a); });
}

void add_verify(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("verify", "Check every hash and bound of a quantised folder");
  command->add_option("DIR", *path, "A folder that subbyte quantize made")->required();
  command->callback([path] { verify(*path); });
}

}  // namespace cli
