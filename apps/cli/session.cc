// subbyte session: one conversation driven by requests, a JSON line in, a JSON line out, until stdin ends. tests/sessions talks to it so;
// tests/sessions/web_session.mjs answers the same requests through the web engine.
#include <iostream>
#include <limits>
#include <memory>

#include "commands.h"

namespace cli {
namespace {

class Conversation {
 public:
  Json answer(const Json& request) {
    struct Operation {
      const char* name;
      Json (Conversation::*run)(const Json&);
    };
    static constexpr Operation kOperations[] = {
        {"load", &Conversation::load},     {"start", &Conversation::start},     {"run", &Conversation::run},
        {"cancel", &Conversation::cancel}, {"reset", &Conversation::reset},     {"info", &Conversation::info},
        {"memory", &Conversation::memory}, {"dispose", &Conversation::dispose},
    };
    const std::string wanted = request.value("op", "");
    for (const Operation& operation : kOperations) {
      if (wanted == operation.name) return (this->*operation.run)(request);
    }
    throw Failure{"kArgumentInvalid", "There is no op \"" + wanted + "\"",
                  "Known: load, start, run, cancel, reset, info, memory, dispose."};
  }

 private:
  /// {model: path, engine: {…}, options: {…}}. What was loaded before goes first.
  Json load(const Json& request) {
    dispose(request);
    const Json options = request.value("engine", Json::object());
    if (!engine_ || options != engine_options_) {
      engine_ = open_engine(options);
      engine_options_ = options;
    }
    model_ = load_model(engine_.get(), request.at("model"), request.value("options", Json::object()));
    session_ = Session(checked(sb_session_create(model_.get(), "{}")));
    return {{"info", parsed(sb_model_info(model_.get()))}};
  }

  /// {request: as sb_session_start takes it}.
  Json start(const Json& request) {
    checked(sb_session_start(session(), request.at("request").dump().c_str()));
    return Json::object();
  }

  /// {tokens?}: steps until the answer is over, or so many tokens have come. {events, more: whether there is more to come}.
  Json run(const Json& request) {
    const int64_t limit = request.value("tokens", std::numeric_limits<int64_t>::max());
    Json events = Json::array();
    int64_t n_tokens = 0;
    bool more = true;
    while (more && n_tokens < limit) {
      more = step(model_.get(), session()) != SB_STEP_DONE;
      n_tokens += drain(events);
    }
    return {{"events", events}, {"more", more}};
  }

  Json cancel(const Json&) {
    Json events = Json::array();
    sb_session_cancel(session());
    drain(events);
    return {{"events", events}, {"more", false}};
  }

  Json reset(const Json&) {
    checked(sb_session_reset(session()));
    return Json::object();
  }

  Json info(const Json&) { return parsed(sb_session_info(session())); }
  Json memory(const Json&) { return parsed(sb_memory()); }

  Json dispose(const Json&) {
    session_.reset();
    model_.reset();
    return Json::object();
  }

  sb_session* session() const {
    if (!session_) throw Failure{"kSessionClosed", "This model was disposed", "Create a new one."};
    return session_.get();
  }

  /// Moves what has happened to `events`; returns how many tokens were among it.
  int64_t drain(Json& events) {
    int64_t n_tokens = 0;
    while (const char* text = sb_session_event(session())) {
      events.push_back(Json::parse(text));
      if (events.back()["type"] == "token") n_tokens++;
    }
    return n_tokens;
  }

  Engine engine_;
  Json engine_options_;
  Model model_;
  Session session_;
};

Json answer_line(Conversation& conversation, const std::string& line) {
  auto error = [](const std::string& code, const std::string& message, const std::string& hint) {
    return Json{{"error", {{"code", code}, {"message", message}, {"hint", hint}}}};
  };
  try {
    return conversation.answer(Json::parse(line));
  } catch (const Failure& failure) { return error(failure.code, failure.message, failure.hint); } catch (const Json::exception& broken) {
    return error("kJsonInvalid", broken.what(), "Send one JSON object a line.");
  }
}

void serve() {
  Conversation conversation;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer_line(conversation, line).dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
}

}  // namespace

void add_session(CLI::App& app) {
  CLI::App* command = app.add_subcommand("session", "Answer requests from stdin, a JSON line each; tests/sessions talks to it so");
  command->callback([] { serve(); });
}

}  // namespace cli
