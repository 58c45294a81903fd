// Every op case on every instruction set of this machine, with one and with three threads, against the scalar reference.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>

#include "device/cpu/cpu_device.h"
#include "device/cpu/kernel.h"
#include "ops/run_case.h"

namespace sb {
namespace {

std::vector<float> run_case(const OpCase& c, const char* isa, int threads, uint64_t seed) {
  auto device = make_cpu_device({threads, isa, false});
  EXPECT_TRUE(device) << isa;
  return run_on(**device, c, seed);
}

class Ops : public testing::TestWithParam<const char*> {};

TEST_P(Ops, AgreeWithTheReference) {
  // Fresh numbers every run; the seed is in the message.
  const uint64_t base = uint64_t(std::chrono::system_clock::now().time_since_epoch().count());
  int n = 0;
  for (const OpCase& c : op_cases()) {
    const uint64_t seed = base + uint64_t(n++);
    const std::vector<float> want = run_case(c, "scalar", 1, seed);
    for (int threads : {1, 3}) {
      const std::vector<float> got = run_case(c, GetParam(), threads, seed);
      ASSERT_EQ(got.size(), want.size());
      const double error = normalised_error(got, want);
      EXPECT_LE(error, c.nmse) << c.op << " " << c.text << ", " << threads << " threads, seed " << seed << "; allowed for: " << c.why;
      if (std::isnan(error)) ADD_FAILURE() << c.op << " " << c.text << " gave NaN, seed " << seed;
    }
  }
}

std::vector<const char*> isas() {
  std::vector<const char*> names;
  for (const KernelTable* table : kernel_tables()) {
    if (std::string_view(table->isa) != "scalar") names.push_back(table->isa);
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Cpu, Ops, testing::ValuesIn(isas()), [](const auto& info) { return std::string(info.param); });

TEST(Ops, AnswerDoesNotDependOnThreads) {
  for (const OpCase& c : op_cases()) { EXPECT_EQ(run_case(c, "auto", 1, 7), run_case(c, "auto", 3, 7)) << c.op << " " << c.text; }
}

// A number that is none makes every output of its token one that is none, whatever the type packs it into, and leaves the others alone.
TEST_P(Ops, NotANumberStaysVisible) {
  constexpr int64_t kWidth = 512, kRows = 64;
  using Weight = std::function<Ref(Sources&)>;
  std::vector<std::pair<std::string, Weight>> weights;
  for (const PlaneFormat& format : plane_formats())
    weights.emplace_back(format.name, [&](Sources& s) { return s.planes(format.name, "", kRows, kWidth, 0, PlaneOrder::kBlocks); });
  for (size_t d = 0; d < kDtypeCount; ++d) {
    const Dtype dtype = Dtype(d);
    if (dtype == Dtype::kI32 || dtype == Dtype::kU8 || dtype == Dtype::kPlanes) continue;
    weights.emplace_back(dtype_name(dtype), [=](Sources& s) { return s.w(dtype, kRows, kWidth); });
  }
  for (const auto& [name, weight] : weights) {
    for (const int64_t n_tokens : {1, 2, 5}) {
      for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        auto device = make_cpu_device({1, GetParam(), false});
        ASSERT_TRUE(device);
        auto plan = std::make_unique<Plan>(n_tokens);
        Sources sources(*plan, 3);
        plan->output("y", matmul(*plan, plan->input("x", kWidth), weight(sources)));
        auto program = (*device)->compile(std::move(plan));
        ASSERT_TRUE(program);
        std::vector<float> x(size_t(n_tokens * kWidth), 0.5f);
        x[size_t((n_tokens - 1) * kWidth + 301)] = bad;
        ASSERT_TRUE((*device)->fill(**program, "x", x));
        ASSERT_TRUE((*device)->submit(**program, {{}, 0, nullptr}));
        const std::span<float> y = (*program)->output("y");
        for (int64_t i = 0; i < n_tokens * kRows; ++i)
          ASSERT_EQ(std::isfinite(y[size_t(i)]), i < (n_tokens - 1) * kRows)
              << name << ", " << n_tokens << " tokens, " << bad << ", output " << i;
      }
    }
  }
}

TEST(Ops, UnknownInstructionSetIsNamed) {
  auto device = make_cpu_device({1, "mmx"});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), Code::kDeviceMissing);
}

}  // namespace
}  // namespace sb
