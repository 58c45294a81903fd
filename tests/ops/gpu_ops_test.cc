// Every op case on the GPU against the scalar reference. SUBBYTE_OP=TEXT runs the cases that have TEXT in their name, and tells their
// errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <random>

#include "device/cpu/cpu_device.h"
#include "device/webgpu/webgpu_device.h"
#include "ops/run_case.h"
#include "runtime/sampler.h"

namespace sb {
namespace {

/// WGSL's exp, tanh and division may be off by some units in the last place, and its conversion to float16 may round either way.
constexpr double kGpuNmse = 1e-9;

/// The GPU, opened once; null where there is none.
Device* gpu() {
  static const std::unique_ptr<Device> device = [] {
    auto made = make_webgpu_device();
    if (!made) std::cerr << made.error().message() << "\n";
    return made ? std::move(*made) : nullptr;
  }();
  return device.get();
}

TEST(GpuOps, AgreeWithTheReference) {
  if (!gpu()) {
    ASSERT_FALSE(std::getenv("SUBBYTE_NEEDS_GPU")) << "this run must not go without a GPU, a software one at least";
    GTEST_SKIP() << "no GPU here";
  }
  const uint64_t base = uint64_t(std::chrono::system_clock::now().time_since_epoch().count());
  const char* only = std::getenv("SUBBYTE_OP");
  int n = 0;
  const std::unique_ptr<Device> reference = std::move(*make_cpu_device({1, "scalar", false}));
  for (const OpCase& c : op_cases()) {
    if (only && (c.op + (" " + c.text)).find(only) == std::string::npos) continue;
    const uint64_t seed = base + uint64_t(n++);
    const std::vector<float> want = run_on(*reference, c, seed), got = run_on(*gpu(), c, seed);
    ASSERT_EQ(got.size(), want.size()) << c.op << " " << c.text;
    const double error = normalised_error(got, want);
    if (only) std::cerr << c.op << " " << c.text << ": " << error << "\n";
    EXPECT_LE(error, std::max(c.nmse, kGpuNmse)) << c.op << " " << c.text << ", seed " << seed << "; allowed for: " << c.why;
    if (std::isnan(error)) ADD_FAILURE() << c.op << " " << c.text << " gave NaN, seed " << seed;
  }
}

/// The choice of the run under way.
Result<std::optional<int32_t>> chosen() {
  Result<std::optional<int32_t>> id = std::nullopt;
  while (id && !*id && gpu()->wait()) id = gpu()->chosen();
  return id;
}

// All ways to narrow the choice, over vocabularies that end inside a group of four, with equals, logits that are ruled out, and marks of
// seeded samplers. A mark within rounding of the edge between two tokens may fall to either.
TEST(GpuOps, DrawsWhatTheSamplerDraws) {
  if (!gpu()) GTEST_SKIP() << "no GPU here";
  struct Shape {
    int64_t n_vocab;
    float spread;
    bool has_equals;
  };
  int n_draws = 0, n_off = 0;
  std::mt19937_64 random(uint64_t(std::chrono::system_clock::now().time_since_epoch().count()));
  for (const Shape& shape : {Shape{40, 2, true}, Shape{1001, 3, false}, Shape{5002, 1, true}, Shape{49152, 4, false}}) {
    auto plan = std::make_unique<Plan>(1);
    const Ref x = plan->input("x", shape.n_vocab), zero = plan->input("zero", shape.n_vocab);
    plan->output("logits", add(*plan, x, zero));
    auto program = gpu()->compile(std::move(plan));
    ASSERT_TRUE(program);
    std::vector<float> logits(size_t(shape.n_vocab));
    std::normal_distribution<float> normal(0, shape.spread);
    for (float& v : logits) v = shape.has_equals ? std::round(2 * normal(random)) / 2 : normal(random);
    for (size_t i = 7; i < logits.size(); i += 31) logits[i] = -std::numeric_limits<float>::infinity();
    ASSERT_TRUE(gpu()->fill(**program, "x", logits));
    ASSERT_TRUE(gpu()->fill(**program, "zero", std::vector<float>(logits.size())));
    const auto n = int32_t(shape.n_vocab);
    for (SamplerOptions options : {SamplerOptions{},
                                   {1},
                                   {0.7f, 1},
                                   {0.7f, 12},
                                   {1.5f, n + 5},
                                   {1, 0, 0.5f},
                                   {1, 0, 0.999f},
                                   {0.8f, 33, 0.9f},
                                   {1, 0, 1, 0.1f},
                                   {2, 50, 0.95f, 0.02f},
                                   {0.05f, 0, 0.9f}}) {
      for (int i = 0; i < 6; ++i, ++n_draws) {
        options.seed = random();
        Sampler sampler(options);
        ASSERT_TRUE(gpu()->submit(**program, {.n_choices = n, .draw = sampler.draw()}));
        sampler.rewind();
        std::vector<float> own = logits;
        const Result<int32_t> want = sampler.sample(own, {});
        const auto got = chosen();
        ASSERT_TRUE(want && got && *got);
        EXPECT_NE(logits[size_t(**got)], -std::numeric_limits<float>::infinity());
        n_off += **got != *want;
        if (options.temperature == 0 || options.top_k == 1) EXPECT_EQ(**got, *want) << n << " of temperature " << options.temperature;
      }
    }
  }
  EXPECT_LE(n_off, 1) << "of " << n_draws;
}

TEST(GpuOps, DrawsNothingFromWhatIsNoNumber) {
  if (!gpu()) GTEST_SKIP() << "no GPU here";
  auto plan = std::make_unique<Plan>(1);
  const Ref x = plan->input("x", 300);
  plan->output("logits", add(*plan, x, x));
  auto program = gpu()->compile(std::move(plan));
  ASSERT_TRUE(program);
  std::vector<float> logits(300, 1);
  logits[123] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_TRUE(gpu()->fill(**program, "x", logits));
  ASSERT_TRUE(
      gpu()->submit(**program, {.n_choices = 300, .draw = {.temperature = 1, .top_k = 5, .top_p = 0.9f, .min_p = 0, .mark = 0.5f}}));
  const auto got = chosen();
  ASSERT_TRUE(got && *got);
  EXPECT_EQ(**got, kNotChosen);
}

// The arena moves when a larger program comes, twice here, so that a buffer's number is used again; what was compiled before still runs.
TEST(GpuOps, ProgramsOutliveTheArena) {
  if (!gpu()) GTEST_SKIP() << "no GPU here";
  auto device = make_webgpu_device();
  ASSERT_TRUE(device);
  std::vector<std::unique_ptr<Program>> programs;
  auto run = [&](Program& program, int64_t width) {
    EXPECT_TRUE((*device)->fill(program, "x", std::vector<float>(size_t(width), 1.5f)));
    EXPECT_TRUE((*device)->submit(program, {}));
    const Result<bool> settled = settle(**device);
    EXPECT_TRUE(settled && *settled);
    const std::span<const float> y = program.output("y");
    EXPECT_EQ(int64_t(std::ranges::count(y, 3.0f)), width);
  };
  for (const int64_t width : {256, 65536, 1 << 20, 1 << 22}) {
    auto plan = std::make_unique<Plan>(1);
    const Ref x = plan->input("x", width);
    plan->output("y", add(*plan, x, x));
    auto program = (*device)->compile(std::move(plan));
    ASSERT_TRUE(program);
    programs.push_back(std::move(*program));
    run(*programs.back(), width);
    run(*programs.front(), 256);
  }
}

}  // namespace
}  // namespace sb
