// subbyte bench: how fast a model loads, prefills and decodes here. What is timed is what a caller sees: wall time, and beside it the CPU
// time of all threads, which other load on the machine does not enter.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "tuning.h"

namespace cli {
namespace {

struct BenchArguments {
  std::string model;
  std::vector<int> prefill = {128, 512};
  int decode = 64, repeat = 5;
  bool json = false, requests = false, steps = false;
  Json engine = Json::object(), load = Json::object();
};

struct Now {
  double wall_ms, cpu_ms;
};
double clock_ms(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return double(t.tv_sec) * 1e3 + double(t.tv_nsec) / 1e6;
}
Now now() { return {clock_ms(CLOCK_MONOTONIC), clock_ms(CLOCK_PROCESS_CPUTIME_ID)}; }
const Now g_process_began = now();

struct Took {
  int64_t n_prompt = 0;  // tokens computed: without those that the cache held
  int64_t n_decode = 0;  // after the first token
  Now began{}, first{}, ended{};
  std::string text;

  Json prefill() const { return {{"n_tokens", n_prompt}, {"ms", first.wall_ms - began.wall_ms}, {"cpu_ms", first.cpu_ms - began.cpu_ms}}; }
  Json decode() const { return {{"n_tokens", n_decode}, {"ms", ended.wall_ms - first.wall_ms}, {"cpu_ms", ended.cpu_ms - first.cpu_ms}}; }
  double first_token_ms() const { return first.wall_ms - g_process_began.wall_ms; }
};

Took answer(sb_model* model, sb_session* session, const Json& request) {
  Took took;
  took.began = now();
  checked(sb_session_start(session, request.dump().c_str()));
  const Json done = run_answer(model, session, [&](const Json& event) {
    if (event["type"] != "token") return;
    took.ended = now();
    if (took.first.wall_ms == 0) took.first = took.ended;
  });
  const Json& usage = done["usage"];
  took.n_prompt = usage["prompt_tokens"].get<int64_t>() - usage["cached_tokens"].get<int64_t>();
  took.n_decode = usage["completion_tokens"].get<int64_t>() - 1;
  took.text = done["text"];
  return took;
}

void say(const Json& line) { std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl; }

/// The side of bench/peers (contenders/process.mjs): loaded once, then a JSON line in, a JSON line out, until stdin ends.
void serve(sb_engine* engine, sb_model* model, sb_session* session, double load_ms) {
  const Json device = parsed(sb_engine_capabilities(engine));
  say({{"load_ms", load_ms}, {"about", {{"threads", device["threads"]}, {"isa", device["isa"]}}}});
  for (std::string line; std::getline(std::cin, line);) {
    try {
      const Json asked = Json::parse(line);
      if (asked.contains("prompt")) {
        const Took took = answer(model, session, {{"prompt", asked["prompt"]}, {"max_tokens", asked["n"]}});
        say({{"text", took.text}, {"first_token_ms", took.first_token_ms()}});
      } else {
        const Took took = answer(model, session, {{"ids", asked["ids"]}, {"max_tokens", asked["n"]}, {"ignore_eos", true}});
        const Json prefill = took.prefill(), decode = took.decode();
        say({{"n_prompt", took.n_prompt},
             {"prefill_ms", prefill["ms"]},
             {"prefill_cpu_ms", prefill["cpu_ms"]},
             {"n_decode", took.n_decode},
             {"decode_ms", decode["ms"]},
             {"decode_cpu_ms", decode["cpu_ms"]}});
      }
    } catch (const Failure& failure) { say({{"error", failure.message}}); } catch (const Json::exception& error) {
      say({{"error", error.what()}});
    }
  }
}

/// Any ids will do for timing; the first differs each time, so that no cached prefix fits.
Json prompt_of(int n_tokens, int turn, int64_t vocab) {
  Json ids = Json::array();
  for (int i = 0; i < n_tokens; i++) ids.push_back((int64_t(turn) * 7919 + int64_t(i) * 31 + 300) % vocab);
  return ids;
}

void print_rates(const char* what, const Json& samples) {
  std::vector<int> sizes;
  for (const Json& s : samples) {
    if (std::ranges::find(sizes, s["n_tokens"].get<int>()) == sizes.end()) sizes.push_back(s["n_tokens"]);
  }
  for (int n : sizes) {
    std::vector<double> rates;
    for (const Json& s : samples) {
      if (s["n_tokens"] == n) rates.push_back(1e3 * n / s["ms"].get<double>());
    }
    std::ranges::sort(rates);
    std::printf("%s %4d tokens  %8.1f tok/s  (%.1f to %.1f in %zu runs)\n", what, n, rates[rates.size() / 2], rates.front(), rates.back(),
                rates.size());
  }
}

/// A GPU's steps of one token, those of a kind together.
void print_steps(const Json& profile) {
  std::map<std::string, std::pair<int, double>> kinds;
  double total = 0;
  for (const Json& step : profile["steps"]) {
    auto& [n, us] = kinds[step["step"].get<std::string>() + " " + step["groups"].dump()];
    ++n;
    us += step["us"].get<double>();
    total += step["us"].get<double>();
  }
  for (const auto& [kind, sum] : kinds) std::printf("%4d × %7.2f µs  %s\n", sum.first, sum.second / sum.first, kind.c_str());
  std::printf("%4zu steps, %.0f µs alone, one after the other\n", profile["steps"].size(), total);
}

void bench(const BenchArguments& a) {
  const Engine engine = open_tuned_engine(a.engine);
  const Now before = now();
  const Model model = load_model(engine.get(), a.model, a.load);
  const Session session(checked(sb_session_create(model.get(), "{}")));
  const double load_ms = now().wall_ms - before.wall_ms;
  if (a.requests) return serve(engine.get(), model.get(), session.get(), load_ms);

  const Json info = parsed(sb_model_info(model.get()));
  const int64_t vocab = info["vocab"];
  Json first = {{"max_tokens", 10}};
  if (info["has_tokenizer"])
    first["prompt"] = "The capital of France is";
  else
    first["ids"] = prompt_of(5, 0, vocab);
  const Took proof = answer(model.get(), session.get(), first);

  Json out = {{"load_ms", load_ms},
              {"first_token_ms", proof.first_token_ms()},
              {"text", proof.text},
              {"prefill", Json::array()},
              {"decode", Json::array()}};
  int turn = 1;
  for (int round = 0; round <= a.repeat; round++) {  // round 0 warms up
    for (size_t i = 0; i < a.prefill.size(); i++) {
      const int n_answer = 1 + (i == 0 ? a.decode : 0);
      const Took took = answer(model.get(), session.get(),
                               {{"ids", prompt_of(a.prefill[i], turn++, vocab)}, {"max_tokens", n_answer}, {"ignore_eos", true}});
      if (round == 0) continue;
      out["prefill"].push_back(took.prefill());
      if (took.n_decode > 0) out["decode"].push_back(took.decode());
    }
  }
  if (a.json) return say(out);
  std::printf("load %.0f ms, first token %.0f ms after the start\n", load_ms, proof.first_token_ms());
  print_rates("prefill", out["prefill"]);
  print_rates("decode ", out["decode"]);
  if (a.steps) {
    answer(model.get(), session.get(), {{"ids", prompt_of(a.prefill[0], turn, vocab)}, {"max_tokens", 4}, {"ignore_eos", true}});
    print_steps(parsed(sb_model_profile(model.get())));
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto a = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand("bench", "Measure how fast a model loads, prefills and decodes here");
  command->add_option("MODEL", a->model, "A GGUF file or a Hugging Face folder")->required();
  command->add_option("--prefill", a->prefill, "Prompt lengths in tokens. Default 128,512.")->delimiter(',')->check(CLI::PositiveNumber);
  command->add_option("--decode", a->decode, "Tokens to decode after the first prompt. Default 64.")->check(CLI::NonNegativeNumber);
  command->add_option("--repeat", a->repeat, "Measured runs, after one that warms up. Default 5.")->check(CLI::PositiveNumber);
  command->add_flag("--json", a->json,
                    "One line of JSON: load_ms, first_token_ms, text, prefill and decode as lists of n_tokens, ms, cpu_ms");
  command->add_flag("--requests", a->requests, "Answer requests from stdin, a JSON line each; bench/peers talks to it so");
  command->add_flag("--steps", a->steps, "On a GPU also how long each step of a token takes by itself");
  add_options(*command, "engine", a->engine);
  add_options(*command, "model", a->load);
  command->callback([a] { bench(*a); });
}

}  // namespace cli
