#include "tuning.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

namespace cli {
namespace fs = std::filesystem;
namespace {

/// What makes an earlier measurement worthless when it changes.
Json machine() {
  std::string cpu;
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    cpu = line.substr(std::min(line.size(), line.find(':') + 2));
    break;
  }
  return {{"cpu", cpu}, {"threads", std::thread::hardware_concurrency()}, {"version", Json::parse(sb_version()).value("version", "")}};
}

}  // namespace

fs::path tuning_file() {
  auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value ? value : "");
  };
  fs::path cache = variable("SUBBYTE_CACHE");
  if (cache.empty()) {
    cache = variable("XDG_CACHE_HOME");
    if (cache.empty()) cache = variable("HOME") / ".cache";
    cache /= "subbyte";
  }
  return cache / "tuning.json";
}

Json stored_tuning() {
  std::ifstream file(tuning_file());
  const Json tuning = Json::parse(file, nullptr, false);  // one that is damaged is none
  auto is_choice = [](const Json& j) {
    return j.is_object() && j.contains("isa") && j["isa"].is_string() && j.contains("threads") && j["threads"].is_number_integer();
  };
  if (!is_choice(tuning) || tuning.value("machine", Json()) != machine() || !tuning.contains("measured")) return Json();
  return std::ranges::all_of(tuning["measured"], is_choice) ? tuning : Json();
}

Json tune(sb_engine* engine) {
  Json tuning = parsed(sb_engine_tuning(engine));
  tuning["machine"] = machine();
  const fs::path file = tuning_file(), part = file.string() + "." + std::to_string(::getpid());
  std::error_code error;
  fs::create_directories(file.parent_path(), error);
  std::ofstream(part) << tuning.dump(1) << "\n";
  fs::rename(part, file, error);
  return tuning;
}

Engine open_tuned_engine(Json options) {
  Engine engine = open_engine(options);
  const Json here = parsed(sb_engine_capabilities(engine.get()));
  if (here["device"] != "cpu" || options.contains("isa") || options.contains("threads")) return engine;
  Json tuning = stored_tuning();
  if (tuning.is_null()) {
    std::fprintf(stderr, "subbyte: first start: measuring this machine …\n");
    tuning = tune(engine.get());
  }
  if (tuning["isa"] == here["isa"] && tuning["threads"] == here["threads"]) return engine;
  options["device"] = "cpu";
  options["isa"] = tuning["isa"];
  options["threads"] = tuning["threads"];
  Engine tuned(sb_engine_create(request_text(options).c_str()));
  return tuned ? std::move(tuned) : std::move(engine);  // a file that names what is not here
}

}  // namespace cli
