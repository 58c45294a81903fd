// The C API's measuring of this machine.
#include <algorithm>
#include <string_view>
#include <vector>

#include "capi/handles.h"
#include "device/cpu/cpu_device.h"
#include "device/cpu/kernel.h"
#include "runtime/rate_probe.h"

using namespace sb;

namespace {

struct Choice {
  std::string isa;
  int threads = 1;
  DeviceRate rate;
};

OrderedJson as_json(const std::vector<Choice>& measured) {
  OrderedJson rows = OrderedJson::array();
  for (const Choice& c : measured)
    rows.push_back({{"isa", c.isa},
                    {"threads", c.threads},
                    {"gweights_per_s", c.rate.weights / 1e9},
                    {"gmac_per_s", c.rate.macs / 1e9},
                    {"answer_ns", c.rate.answer() * 1e9}});
  return rows;
}

#if defined(__wasm__)

// A browser makes the module fast while it runs, on cores that are measured: of so many turns the best counts.
constexpr int kTurns = 2;

// A page's threads are its host's: with how many of them an engine was made it is measured, beside one.
Result<std::string> measure_choices(Device& own) {
  const RateProbe probe;
  const std::string isa = kernel_tables().front()->isa;
  SB_TRY(const std::unique_ptr<Device> alone, make_cpu_device({1, isa, true}));
  std::vector<Choice> measured = {{isa, own.n_threads(), {}}, {isa, 1, {}}};
  for (int turn = 0; turn < kTurns; ++turn) {
    for (Choice& choice : measured) {
      SB_TRY(const DeviceRate now, probe.measure(choice.threads == 1 ? *alone : own));
      choice.rate = {std::max(choice.rate.weights, now.weights), std::max(choice.rate.macs, now.macs)};
    }
  }
  return json_text(OrderedJson{{"isa", isa}, {"measured", as_json(measured)}});
}

#else

// Fewer threads that are as fast but for this leave a core to others.
constexpr double kAsFast = 1.05;

Result<std::string> measure_choices(Device&) {
  const RateProbe probe;
  std::vector<Choice> measured;
  auto measure = [&](const std::string& isa, int threads) -> Result<Choice> {
    SB_TRY(const std::unique_ptr<Device> device, make_cpu_device({threads, isa, true}));
    SB_TRY(const DeviceRate rate, probe.measure(*device));
    return measured.emplace_back(Choice{isa, device->n_threads(), rate});
  };
  // Kernels by what a thread makes of them, then threads with the best of these.
  Choice best;
  for (const KernelTable* table : kernel_tables()) {
    if (std::string_view(table->isa) == "scalar") continue;  // the reference
    SB_TRY(const Choice choice, measure(table->isa, 1));
    if (best.isa.empty() || choice.rate.answer() < best.rate.answer()) best = choice;
  }
  if (best.isa.empty()) { SB_TRY(best, measure("scalar", 1)); }
  SB_TRY(const std::unique_ptr<Device> all, make_cpu_device({0, best.isa, true}));
  for (int threads = all->n_threads(); threads > 1; threads = (threads + 1) / 2) {
    SB_TRY(const Choice choice, measure(best.isa, threads));
    const double more = choice.rate.answer() / best.rate.answer();
    if (choice.threads > best.threads ? more * kAsFast < 1 : more < kAsFast) best = choice;
    if (threads == 2) break;
  }
  return json_text(OrderedJson{{"isa", best.isa}, {"threads", best.threads}, {"measured", as_json(measured)}});
}

#endif

}  // namespace

extern "C" const char* sb_engine_tuning(sb_engine* engine) { return lend(engine->text, measure_choices(*engine->device)); }
