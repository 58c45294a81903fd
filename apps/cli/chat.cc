#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>

#include "commands.h"
#include "tuning.h"

namespace cli {
namespace {

struct ChatArguments {
  std::string model, system;
  Json engine = Json::object(), load = Json::object(), generate = Json::object();
};

std::atomic<bool> g_interrupted{false};

/// One line from the user; false at the end of input. Ctrl-C at the prompt only says how to leave.
bool ask(std::string& line) {
  for (;;) {
    g_interrupted = false;
    std::fputs("> ", stdout);
    std::fflush(stdout);
    std::cin.clear();
    clearerr(stdin);
    if (std::getline(std::cin, line)) return true;
    if (!g_interrupted) return false;
    std::fputs("\n(Ctrl-D or /exit leaves)\n", stdout);
  }
}

void chat(const ChatArguments& a) {
  const Engine engine = open_tuned_engine(a.engine);
  std::fprintf(stderr, "Loading %s …\n", a.model.c_str());
  const Model model = load_model(engine.get(), a.model, a.load);
  const Json info = parsed(sb_model_info(model.get()));
  if (!info["has_chat_template"])
    throw Failure{"kTemplateMissing", a.model + " has no chat template", "Use `subbyte run MODEL --raw --prompt …` instead."};
  std::fprintf(stderr, "%s, %.1f MB, context %d tokens. /new starts over, Ctrl-C stops an answer, Ctrl-D or /exit leaves.\n",
               info["name"].get<std::string>().c_str(), info["weight_bytes"].get<double>() / 1e6, info["context"].get<int>());

  struct sigaction action = {};
  action.sa_handler = [](int) { g_interrupted = true; };
  sigaction(SIGINT, &action, nullptr);  // no SA_RESTART: a read at the prompt must come back

  const Session session(checked(sb_session_create(model.get(), "{}")));
  Json messages = Json::array();
  auto start_over = [&] {
    messages = Json::array();
    if (!a.system.empty()) messages.push_back({{"role", "system"}, {"content", a.system}});
    checked(sb_session_reset(session.get()));
  };
  start_over();
  std::string line;
  while (ask(line)) {
    if (line == "/exit" || line == "/quit") break;
    if (line == "/new") {
      start_over();
      continue;
    }
    if (line.empty()) continue;
    messages.push_back({{"role", "user"}, {"content", line}});
    Json request = a.generate;
    request["messages"] = messages;
    request["date"] = today();
    try {
      checked(sb_session_start(session.get(), request_text(request).c_str()));
      const Json done = run_answer(
          model.get(), session.get(),
          [](const Json& event) {
            if (event["type"] != "token") return;
            std::fputs(event["text"].get<std::string>().c_str(), stdout);
            std::fflush(stdout);
          },
          [] { return g_interrupted.load(); });
      std::printf("\n");
      const Json& usage = done["usage"];
      std::fprintf(stderr, "[%s%d tokens, %.1f/s]\n", done["finish_reason"] == "cancelled" ? "stopped, " : "",
                   usage["completion_tokens"].get<int>(), usage["decode_tokens_per_s"].get<double>());
      messages.push_back({{"role", "assistant"}, {"content", done["text"]}});
    } catch (const Failure& failure) {
      // The conversation goes on without the message that failed.
      messages.erase(messages.end() - 1);
      std::fprintf(stderr, "subbyte: %s (%s)\n         %s\n", failure.message.c_str(), failure.code.c_str(), failure.hint.c_str());
    }
  }
  std::printf("\n");
}

}  // namespace

void add_chat(CLI::App& app) {
  auto a = std::make_shared<ChatArguments>();
  a->generate["max_tokens"] = 1024;
  CLI::App* command = app.add_subcommand("chat", "Talk with a model, turn by turn");
  command->add_option("MODEL", a->model, "A GGUF file or a Hugging Face folder")->required();
  command->add_option("--system", a->system, "A system message");
  add_options(*command, "engine", a->engine);
  add_options(*command, "model", a->load);
  add_options(*command, "generate", a->generate);
  command->callback([a] { chat(*a); });
}

}  // namespace cli
