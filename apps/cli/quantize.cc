// subbyte quantize: a model to a folder of planes, with what it lost.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "commands.h"
#include "evaluate.h"
#include "partial_folder.h"
#include "progress_bar.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

// Work that a crash or a full disk may cost: a checkpoint of a 7B model is some hundred megabytes.
constexpr double kCheckpointSeconds = 600;
double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

struct QuantizeArguments {
  std::string source, target, allocation;
  std::vector<std::string> texts;
  int64_t eval_windows = 8;
  bool json = false, resume = false;
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
  if (report.contains("imported"))
    row("kept without loss", std::to_string(report["imported"].size()) + " groups, whose weights had few levels already");
  if (!loss.is_null()) {
    row("KL to the source", fixed(loss["kl"], 4) + " ± " + fixed(loss["kl_se"], 4) + " nats a token");
    row("perplexity", fixed(loss["ppl"], 2) + " (source " + fixed(loss["ppl_ref"], 2) + ")");
    row("next token right", fixed(100 * loss["top1"].get<double>(), 2) + " % (source " + fixed(100 * loss["top1_ref"].get<double>(), 2) +
                                " %, a relative drop of " + fixed(100 * loss["top1_drop"].get<double>(), 2) + " ± " +
                                fixed(100 * loss["top1_drop_se"].get<double>(), 2) + " %)");
    row("measured on", std::to_string(loss["n_tokens"].get<int64_t>()) + " tokens of held-out text, " +
                           std::to_string(loss["n_windows"].get<int>()) + " windows");
  }
  if (report.contains("tuning")) {
    const Json& t = report["tuning"];
    const int64_t steps = t["steps"];
    row("tuned", steps == 0 ? "no: nothing was better than the start on held-out text"
                            : "scales and norms, " + std::to_string(steps) + " steps; KL to the source on " +
                                  std::to_string(t["held_out_tokens"].get<int64_t>()) + " held-out tokens " + fixed(t["kl_before"], 4) +
                                  " → " + fixed(t["kl_after"], 4));
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
  PartialFolder folder(a.target, a.resume);
  const Engine engine = open_engine_for_measuring(a.engine);
  const std::string before = state_of(a.source);
  Load load = bring(engine.get(), a.source, Json::object());
  const sb_scratch scratch = folder.scratch();
  // What the scratch file says of a failure is more than what the engine knows.
  auto checked_too = [&](auto result) {
    folder.check_scratch();
    return checked(result);
  };
  const Quantizer quantizer(checked_too(sb_quantizer_create(engine.get(), load.release(), texts.calibration.data(),
                                                            texts.calibration.size(), &scratch, request_text(a.quantize).c_str())));

  if (a.resume) {
    const std::string checkpoint = folder.checkpoint();
    checked_too(sb_quantizer_resume(quantizer.get(), checkpoint.data(), checkpoint.size()));
  }
  auto write_out = [&] {
    sb_write write;
    while (sb_quantizer_write(quantizer.get(), &write)) folder.write(write.file, write.offset, write.data, write.n_bytes);
  };
  auto check_source = [&] {
    if (state_of(a.source) == before) return;
    throw Failure{"kSourceChanged", a.source + " changed while it was being quantised", "Run it again when nothing writes to it."};
  };
  auto keep_checkpoint = [&] {
    check_source();
    if (!checked(sb_quantizer_checkpoint(quantizer.get()))) return;
    write_out();
    folder.check_scratch();
    folder.keep_checkpoint();
  };

  std::signal(SIGXFSZ, SIG_IGN);  // a limit on files' sizes is an error of the write, not the end of the program
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, [](int) { g_interrupted = 1; });
  double checkpoint_at = seconds_now();
  std::unique_ptr<ProgressBar> bar;
  std::string phase;
  for (;;) {
    const int32_t more = checked_too(sb_quantizer_step(quantizer.get()));
    write_out();
    const Json progress = parsed(sb_quantizer_progress(quantizer.get()));
    const bool begins = progress["phase"] != phase && progress["phase"] != "done";
    if (begins) {
      if (bar) bar->done();
      phase = progress["phase"];
      bar = std::make_unique<ProgressBar>(phase);
    }
    if (bar)
      bar->show(progress["fraction"],
                progress.contains("seconds_left") ? std::optional(progress["seconds_left"].get<double>()) : std::nullopt);
    if (more == SB_STEP_DONE) break;
    if (g_interrupted || seconds_now() - checkpoint_at > kCheckpointSeconds) {
      keep_checkpoint();
      checkpoint_at = seconds_now();
    }
    if (g_interrupted)
      throw Failure{"kInterrupted", "Interrupted; " + folder.path().string() + " has a checkpoint",
                    "Go on with --resume, or remove that folder."};
  }
  bar->done();
  check_source();
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
  if (report.contains("imported"))
    std::printf("  %zu groups had few levels already and were kept without loss\n", report["imported"].size());
  if (!loss.is_null()) print_report(loss);
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
  command->add_flag("--resume", a->resume, "Go on from the checkpoint that an interrupted run left in DST.partial");
  command->add_flag("--json", a->json, "The report as JSON");
  add_options(*command, "engine", a->engine);
  add_options(*command, "quantize", a->quantize);
  command->callback([a] { quantize(*a); });
}

}  // namespace cli
