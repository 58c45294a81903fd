// Every op case on the GPU against the scalar reference. SUBBYTE_OP=TEXT runs the cases that have TEXT in their name, and tells their
// errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "device/cpu/cpu_device.h"
#include "device/webgpu/webgpu_device.h"
#include "ops/run_case.h"

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
