// subbyte doctor: what this machine has, and what was measured of it.
#include <cstdio>

#include "commands.h"
#include "tuning.h"

namespace cli {
namespace {

struct DoctorArguments {
  bool json = false, tune = false, reset = false;
};

void doctor(const DoctorArguments& a) {
  std::error_code error;
  if (a.reset) std::filesystem::remove(tuning_file(), error);
  const Engine cpu = open_engine({{"device", "cpu"}}), best = open_engine(Json::object());
  const Json cpu_here = parsed(sb_engine_capabilities(cpu.get())), here = parsed(sb_engine_capabilities(best.get()));
  const Json tuning = a.tune ? tune(cpu.get()) : stored_tuning();
  const Json gpu = here.value("gpu", Json());
  if (a.json) {
    const Json out = {{"isa", cpu_here["isa"]},        {"threads", cpu_here["threads"]},        {"gpu", gpu},
                      {"gpu_why", here["device_why"]}, {"tuning_file", tuning_file().string()}, {"tuning", tuning}};
    std::printf("%s\n", out.dump().c_str());
    return;
  }
  std::printf("cpu      %s, %d threads\n", cpu_here["isa"].get<std::string>().c_str(), cpu_here["threads"].get<int>());
  if (gpu.is_object()) {
    std::printf("gpu      %s\n", gpu.value("adapter", "").c_str());
  } else {
    std::printf("gpu      none: %s\n", here["device_why"].get<std::string>().c_str());
  }
  if (tuning.is_null()) {
    std::printf("tuning   none yet: the first answer measures, or subbyte doctor --tune\n");
    return;
  }
  std::printf("tuning   %s, %d threads (%s)\n", tuning["isa"].get<std::string>().c_str(), tuning["threads"].get<int>(),
              tuning_file().c_str());
  std::printf("         isa       threads   10⁹ weights/s   10⁹ multiply-adds/s of a prompt\n");
  for (const Json& m : tuning["measured"]) {
    std::printf("         %-10s %6d %15.1f %12.1f\n", m.value("isa", "").c_str(), m.value("threads", 0), m.value("gweights_per_s", 0.0),
                m.value("gmac_per_s", 0.0));
  }
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto a = std::make_shared<DoctorArguments>();
  CLI::App* command = app.add_subcommand("doctor", "What this machine has, and which kernels and threads were measured to be the best");
  command->add_flag("--tune", a->tune, "Measure anew");
  command->add_flag("--reset", a->reset, "Forget what was measured");
  command->add_flag("--json", a->json, "As JSON");
  command->callback([a] { doctor(*a); });
}

}  // namespace cli
