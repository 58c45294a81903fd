// Times op cases on this machine, natively and in WebAssembly: one request a line, one line of JSON back. ops.mjs asks.
//
//   list                    → {"cases": [{"op", "text", "n_tokens"}, …]}
//   probe                   → {"isa", "read_gb_s", "dot_gmac_s"}: what the machine can do with one thread
//   run INDEX THREADS MS    → {"ms", "cpu_ms", "runs", "nmse", "allowed", "macs", "weight_bytes"}: one sample of at least MS milliseconds;
//                             cpu_ms is this process's own time a run (0 in WebAssembly, which has no such clock)
//
// A case is prepared when it is first asked for: it is checked against the scalar reference, and never timed when its answer is wrong.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <optional>
#include <string>

#include "base/host.h"
#include "device/cpu/cpu_device.h"
#include "device/cpu/kernel.h"
#include "ops/op_cases.h"
#include "probe.h"

namespace sb {

#define SB_ISA_PROBE(isa)    \
  namespace isa {            \
  extern const Probe kProbe; \
  }
SB_PROBES(SB_ISA_PROBE)

namespace {

std::string text(const char* format, auto... values) {
  char line[512];
  const int n = std::snprintf(line, sizeof line, format, values...);
  return std::string(line, size_t(std::clamp(n, 0, int(sizeof line) - 1)));
}
double cpu_now_ms() {
#if defined(__wasm__)
  return 0;
#else
  return 1e3 * double(std::clock()) / CLOCKS_PER_SEC;
#endif
}
std::string refusal(const std::string& why) { return "{\"error\": \"" + why + "\"}"; }

/// A case on a device, ready to run.
struct Prepared {
  size_t index;
  int n_threads;
  std::unique_ptr<Sources> sources;
  std::unique_ptr<Device> device;
  std::unique_ptr<Program> program;
  std::unique_ptr<KvPages> kv;
  std::vector<int32_t> ids;
  int64_t weight_bytes = 0;
  double nmse = 0;

  bool run(const OpCase& c) { return bool(device->submit(*program, {ids, c.position, kv.get()})); }
};

int64_t bytes_of(const Value& v) {
  if (!v.weight.planes) return v.shape.rank() == 2 ? dtype_bytes(v.dtype, v.shape[1]) * v.shape[0] : 0;
  int64_t n = 0;
  for (int set = 0; set < v.weight.planes->n_sets; ++set)
    n += int64_t(plane_set_bytes(v.weight.planes->sets[set].code.n_planes, v.shape[0], v.shape[1]));
  return n;
}

std::optional<Prepared> prepare(const OpCase& c, size_t index, int n_threads, const char* isa) {
  Prepared p{.index = index, .n_threads = n_threads, .sources = {}, .device = {}, .program = {}, .kv = {}, .ids = {}};
  auto device = make_cpu_device({n_threads, isa, false});
  if (!device) return std::nullopt;
  p.device = std::move(*device);
  auto plan = std::make_unique<Plan>(c.n_tokens);
  p.sources = std::make_unique<Sources>(*plan, 7);
  const Ref y = c.build(*plan, *p.sources);
  plan->output("y", y);
  for (const Node& node : plan->nodes()) {
    if (std::holds_alternative<MatMul>(node.op)) p.weight_bytes += bytes_of(plan->values()[size_t(node.inputs[1])]);
  }
  const int32_t kv_width = std::max(1, c.kv_width);
  p.kv = std::make_unique<KvPages>(1, kv_width, head_dim_of(*plan, kv_width), c.half);
  if (!p.kv->reserve(c.position + c.n_tokens)) return std::nullopt;
  if (c.kv_width) p.sources->fill(*p.kv, 1, c.position);
  for (int64_t t = 0; t < c.n_tokens; ++t) p.ids.push_back(int32_t(t));
  auto program = p.device->compile(std::move(plan));
  if (!program) return std::nullopt;
  p.program = std::move(*program);
  return p;
}

/// Σ(a − b)² / Σb² against the scalar reference.
std::optional<double> checked(Prepared& p, const OpCase& c) {
  std::optional<Prepared> reference = prepare(c, p.index, 1, "scalar");
  if (!reference || !reference->run(c) || !p.run(c)) return std::nullopt;
  const std::span<float> want = reference->program->output("y"), got = p.program->output("y");
  double error = 0, power = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double(got[i]) - double(want[i])) * (double(got[i]) - double(want[i]));
    power += double(want[i]) * double(want[i]);
  }
  return error / power;
}

const std::vector<OpCase>& cases() {
  static const std::vector<OpCase> all = bench_cases();
  return all;
}

std::string list() {
  std::string out = "{\"cases\": [";
  for (const OpCase& c : cases()) {
    if (&c != &cases().front()) out += ", ";
    out += "{\"op\": \"" + std::string(c.op) + "\", \"text\": \"" + c.text + "\", \"n_tokens\": " + std::to_string(c.n_tokens) + "}";
  }
  return out + "]}";
}

std::string run(size_t index, int n_threads, double ms) {
  static std::optional<Prepared> prepared;
  if (index >= cases().size()) return refusal("there is no such case");
  const OpCase& c = cases()[index];
  if (!prepared || prepared->index != index || prepared->n_threads != n_threads) {
    prepared.reset();
    prepared = prepare(c, index, n_threads, "auto");
    if (!prepared) return refusal("the case cannot be prepared");
    const std::optional<double> nmse = checked(*prepared, c);
    if (!nmse) return refusal("the case does not run");
    prepared->nmse = *nmse;
  }
  if (!(prepared->nmse <= c.nmse)) return refusal(text("wrong answer: error %.3g, allowed %.3g", prepared->nmse, c.nmse));
  int64_t n = 0;
  const double cpu_began = cpu_now_ms(), began = host_now_ms();
  double took = 0;
  for (int64_t batch = 1; took < ms; batch *= 2) {  // a look at the clock is a call out of the module
    for (int64_t i = 0; i < batch; ++i) {
      if (!prepared->run(c)) return refusal("the case does not run");
    }
    n += batch;
    took = host_now_ms() - began;
  }
  const double cpu_took = cpu_now_ms() - cpu_began;
  return text("{\"ms\": %.6f, \"cpu_ms\": %.6f, \"runs\": %" PRId64
              ", \"nmse\": %.3g, \"allowed\": %.3g, \"macs\": %.0f, \"weight_bytes\": %" PRId64 "}",
              took / double(n), cpu_took / double(n), n, prepared->nmse, c.nmse, c.macs, prepared->weight_bytes);
}

std::string probe() {
  const Probe* here = nullptr;
#define SB_FIND_PROBE(name) \
  if (std::string_view(kernel_tables().front()->isa) == name::kProbe.isa) here = &name::kProbe;
  SB_PROBES(SB_FIND_PROBE)
  if (!here) return refusal("no probe for this instruction set");
  constexpr int64_t kBytes = int64_t(64) << 20;  // beyond the caches of one core
  auto block = Block::take(Tag::kScratch, kBytes);
  if (!block) return refusal("no memory for the probe");
  std::fill(block->bytes().begin(), block->bytes().end(), std::byte(1));  // untouched pages would all be one
  [[maybe_unused]] static volatile uint32_t sink;
  auto best = [](double amount, auto once) {  // per millisecond
    double most = 0;
    for (int i = 0; i < 40; ++i) {
      const double cpu_began = cpu_now_ms(), began = host_now_ms();
      once();
      const double took = host_now_ms() - began, cpu_took = cpu_now_ms() - cpu_began;
      most = std::max(most, amount / (cpu_took > 0 ? cpu_took : took));
    }
    return most;
  };
  const double bytes = best(double(kBytes), [&] { sink = here->read(block->data(), kBytes); });
  constexpr int64_t kRounds = 1'000'000;
  const double macs = best(double(kRounds * here->macs_per_dot), [&] { sink = uint32_t(here->dot(kRounds)); });
  return text("{\"isa\": \"%s\", \"read_gb_s\": %.3f, \"dot_gmac_s\": %.3f}", here->isa, bytes / 1e6, macs / 1e6);
}

std::string answer(const std::string& line) {
  size_t index = 0;
  int n_threads = 1;
  double ms = 0;
  if (line == "list") return list();
  if (line == "probe") return probe();
  if (std::sscanf(line.c_str(), "run %zu %d %lf", &index, &n_threads, &ms) == 3) return run(index, n_threads, ms);
  return refusal("not a request");
}

}  // namespace
}  // namespace sb

#if defined(__wasm__)

namespace {
char g_request[256];
}
extern "C" {
/// Where the host writes a request of at most 255 bytes and a zero.
__attribute__((export_name("sb_bench_request"))) char* sb_bench_request() { return g_request; }
/// The answer comes as a log line.
__attribute__((export_name("sb_bench_answer"))) void sb_bench_answer() { sb::host_log(sb::LogLevel::kInfo, sb::answer(g_request)); }
}

#else

int main() {
  char line[256];
  while (std::fgets(line, sizeof line, stdin)) {
    std::string request = line;
    while (!request.empty() && request.back() == '\n') request.pop_back();
    std::puts(sb::answer(request).c_str());
    std::fflush(stdout);
  }
}

#endif
