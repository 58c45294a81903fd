// subbyte verify: whether a quantised folder's bytes are whole.
#include <cstdio>

#include "commands.h"

namespace cli {
namespace {

void verify(const std::string& path) {
  const Engine engine = open_engine({{"device", "cpu"}});
  const Load load = bring(engine.get(), path, {{"container", "verify"}});
  const Json progress = parsed(sb_load_progress(load.get()));
  std::printf("%s: %.1f MB, every hash and bound is right\n", path.c_str(), progress["done_bytes"].get<double>() / 1e6);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("verify", "Check every hash and bound of a quantised folder");
  command->add_option("DIR", *path, "A folder that subbyte quantize made")->required();
  command->callback([path] { verify(*path); });
}

}  // namespace cli
