// Every op case on every instruction set of this machine, with one and with three threads, against the scalar reference.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "device/cpu/cpu_device.h"
#include "device/cpu/kernel.h"
#include "ops/op_cases.h"

namespace sb {
namespace {

std::vector<float> run_case(const OpCase& c, const char* isa, int threads, uint64_t seed) {
  auto device = make_cpu_device({threads, isa});
  EXPECT_TRUE(device) << isa;
  auto plan = std::make_unique<Plan>(c.n_tokens);
  Sources sources(*plan, seed);
  const Ref y = c.build(*plan, sources);
  plan->output("y", y);
  EXPECT_TRUE(plan->finish()) << plan->finish().error().message();
  KvPages kv(1, std::max(1, c.kv_width), c.half);
  EXPECT_TRUE(kv.reserve(c.position + c.n_tokens));
  if (c.kv_width) sources.fill(kv, 1, c.position);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < c.n_tokens; ++t) ids.push_back(int32_t(t));
  auto program = (*device)->compile(std::move(plan));
  EXPECT_TRUE(program);
  EXPECT_TRUE((*device)->submit(**program, {ids, c.position, &kv}));
  const std::span<float> out = (*program)->output("y");
  return {out.begin(), out.end()};
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
      double error = 0, power = 1e-30;
      for (size_t i = 0; i < want.size(); ++i) {
        error += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
        power += double(want[i]) * want[i];
      }
      EXPECT_LE(error / power, c.nmse) << c.op << " " << c.text << ", " << threads << " threads, seed " << seed
                                       << "; allowed for: " << c.why;
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

TEST(Ops, UnknownInstructionSetIsNamed) {
  auto device = make_cpu_device({1, "mmx"});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), Code::kDeviceMissing);
}

}  // namespace
}  // namespace sb
