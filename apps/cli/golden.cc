#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include "commands.h"

namespace cli {
namespace {

struct GoldenArguments {
  std::vector<std::string> folders;
  std::string dump;
  bool json = false;
  Json engine = Json::object();
};

void golden(const GoldenArguments& a) {
  const Engine engine = open_engine(a.engine);
  int n_passed = 0, n_failed = 0;
  for (const std::string& folder : a.folders) {
    std::string name = std::filesystem::path(folder).lexically_normal().filename().string();
    if (name.empty()) name = std::filesystem::path(folder).lexically_normal().parent_path().filename().string();
    Json report;
    try {
      const Model model = load_model(engine.get(), folder, Json::object());
      const std::string bytes = read_file((std::filesystem::path(folder) / "golden.safetensors").string());
      checked(sb_golden_start(model.get(), bytes.data(), bytes.size()));
      while (checked(sb_golden_step(model.get())) != SB_STEP_DONE) {}
      report = parsed(sb_golden_report(model.get()));
      if (!a.dump.empty()) {
        uint64_t n_bytes = 0;
        const void* dump = sb_golden_dump(model.get(), &n_bytes);
        std::filesystem::create_directories(a.dump);
        std::ofstream out(std::filesystem::path(a.dump) / (name + ".safetensors"), std::ios::binary);
        out.write(static_cast<const char*>(dump), std::streamsize(n_bytes));
        if (!out.flush())
          throw Failure{"kReadFailed", "Writing into " + a.dump + " failed", "Check the disk and the folder's permissions."};
      }
    } catch (const Failure& failure) {
      report = {{"passed", false}, {"error", {{"code", failure.code}, {"message", failure.message}, {"hint", failure.hint}}}};
    }
    (report["passed"] ? n_passed : n_failed) += 1;
    if (a.json) {
      report["name"] = name;
      std::printf("%s\n", report.dump().c_str());
      continue;
    }
    if (report.contains("error"))
      std::printf("FAIL %s: %s (%s)\n", name.c_str(), report["error"]["message"].get<std::string>().c_str(),
                  report["error"]["code"].get<std::string>().c_str());
    if (!report.contains("outputs")) continue;
    for (const Json& o : report["outputs"]) {
      std::printf("%s %-14s %-16s %8d values, worst |a-b|/(1+|b|) %.2e (at most %.0e)\n", o["passed"] ? "pass" : "FAIL", name.c_str(),
                  o["name"].get<std::string>().c_str(), o["n"].get<int>(), o["worst"].get<double>(), o["tolerance"].get<double>());
    }
  }
  std::fprintf(a.json ? stderr : stdout, "%d passed, %d failed\n", n_passed, n_failed);
  if (n_failed) throw CLI::RuntimeError(1);
}

}  // namespace

void add_golden(CLI::App& app) {
  auto a = std::make_shared<GoldenArguments>();
  CLI::App* command =
      app.add_subcommand("golden", "Compare models with reference outputs (config.json, model.safetensors, golden.safetensors)");
  command->add_option("DIR", a->folders, "Golden folders")->required();
  command->add_option("--dump", a->dump, "Write what was computed as OUTDIR/<name>.safetensors");
  command->add_flag("--json", a->json, "As JSON, a line a folder");
  add_options(*command, "engine", a->engine);
  command->callback([a] { golden(*a); });
}

}  // namespace cli
