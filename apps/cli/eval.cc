// subbyte eval: what a model knows of a text, and what it lost against the one that it was made from.
#include <cstdio>
#include <filesystem>

#include "commands.h"
#include "evaluate.h"
#include "progress_bar.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

struct EvalArguments {
  std::string model, against;
  std::vector<std::string> texts;
  bool json = false;
  Json engine = Json::object(), loading = Json::object(), eval = Json::object();
};

uint64_t bytes_on_disk(const fs::path& model) {
  std::error_code error;
  if (!fs::is_directory(model, error)) return uint64_t(fs::file_size(model, error));
  uint64_t n = 0;
  for (const auto& entry : fs::directory_iterator(model, error)) n += entry.is_regular_file() ? uint64_t(entry.file_size()) : 0;
  return n;
}

void eval(const EvalArguments& a) {
  const std::string text = read_texts(a.texts);
  const Engine engine = open_engine_for_measuring(a.engine);
  const Model model = load_model(engine.get(), a.model, a.loading);
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

}  // namespace

std::string read_texts(const std::vector<std::string>& files) {
  std::string text;
  for (const std::string& file : files) text += read_file(file) + "\n";
  return text;
}

Json evaluate(sb_model* model, sb_model* reference, const std::string& text, const Json& options) {
  const Evaluation eval(checked(sb_eval_create(model, reference, text.data(), text.size(), request_text(options).c_str())));
  ProgressBar bar("evaluate");
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

void add_eval(CLI::App& app) {
  auto a = std::make_shared<EvalArguments>();
  CLI::App* command = app.add_subcommand("eval", "Perplexity, and KL and accuracy against a reference");
  command->add_option("MODEL", a->model, "A GGUF file or a folder")->required();
  command->add_option("--text", a->texts, "Held-out text")->required();
  command->add_option("--against", a->against, "The model that it was made from");
  command->add_option_function<std::string>(
      "--planes", [a](const std::string& planes) { a->loading["planes"] = planes; },
      "Of a folder with a refinement: base, or full (default)");
  command->add_flag("--json", a->json, "As JSON");
  add_options(*command, "engine", a->engine);
  add_options(*command, "eval", a->eval);
  command->callback([a] { eval(*a); });
}

}  // namespace cli
