#include <chrono>
#include <cstdio>
#include <memory>

#include "commands.h"
#include "tuning.h"

namespace cli {
namespace {

struct RunArguments {
  std::string model, prompt, system;
  bool raw = false, json = false;
  Json engine = Json::object(), load = Json::object(), generate = Json::object();
};

void run(const RunArguments& a) {
  const auto begin = std::chrono::steady_clock::now();
  const Engine engine = open_tuned_engine(a.engine);
  const Model model = load_model(engine.get(), a.model, a.load);
  const double load_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  const Json info = parsed(sb_model_info(model.get()));

  Json request = a.generate;
  if (a.raw || !info["has_chat_template"]) {
    request["prompt"] = a.prompt;
  } else {
    request["messages"] = Json::array();
    request["date"] = today();
    if (!a.system.empty()) request["messages"].push_back({{"role", "system"}, {"content", a.system}});
    request["messages"].push_back({{"role", "user"}, {"content", a.prompt}});
  }
  const Session session(checked(sb_session_create(model.get(), "{}")));
  checked(sb_session_start(session.get(), request_text(request).c_str()));
  const Json done = run_answer(model.get(), session.get(), [](const Json& event) {
    if (event["type"] != "token") return;
    const std::string text = event["text"];
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  });
  std::printf("\n");

  const Json &usage = done["usage"], device = parsed(sb_engine_capabilities(engine.get()));
  if (!a.json) {
    std::fprintf(stderr, "%s, %d threads (%s): prompt %d tokens at %.1f/s, answer %d tokens at %.1f/s, first token %.0f ms, load %.0f ms\n",
                 device["device"].get<std::string>().c_str(), device["threads"].get<int>(), device["isa"].get<std::string>().c_str(),
                 usage["prompt_tokens"].get<int>(), usage["prefill_tokens_per_s"].get<double>(), usage["completion_tokens"].get<int>(),
                 usage["decode_tokens_per_s"].get<double>(), usage["first_token_ms"].get<double>(), load_ms);
    return;
  }
  const Json memory = parsed(sb_memory());
  Json bytes_by_tag;
  for (const auto& [tag, books] : memory["by_tag"].items()) bytes_by_tag[tag] = books["peak"];
  const Json out = {{"text", done["text"]},
                    {"tokens", done["ids"].size()},
                    {"ids", done["ids"]},
                    {"backend", "native"},
                    {"device", device["device"].get<std::string>() + " " + device["isa"].get<std::string>() + " ×" +
                                   std::to_string(device["threads"].get<int>())},
                    {"prefill_tokens_per_s", usage["prefill_tokens_per_s"]},
                    {"decode_tokens_per_s", usage["decode_tokens_per_s"]},
                    {"first_token_ms", usage["first_token_ms"]},
                    {"load_ms", load_ms},
                    {"peak_bytes", memory["peak"]},
                    {"bytes_by_tag", bytes_by_tag}};
  std::printf("%s\n", out.dump().c_str());
}

}  // namespace

void add_run(CLI::App& app) {
  auto a = std::make_shared<RunArguments>();
  CLI::App* command = app.add_subcommand("run", "Answer one prompt");
  command->add_option("MODEL", a->model, "A GGUF file or a Hugging Face folder")->required();
  command->add_option("-p,--prompt", a->prompt, "The prompt: a user message when the model has a chat template")->required();
  command->add_option("--system", a->system, "A system message before it");
  command->add_flag("--raw", a->raw, "Continue the prompt as plain text, without the chat template");
  command->add_flag("--json", a->json, "End with one line of JSON: text, ids, speeds, memory");
  add_options(*command, "engine", a->engine);
  add_options(*command, "model", a->load);
  add_options(*command, "generate", a->generate);
  command->callback([a] { run(*a); });
}

}  // namespace cli
