#include "runtime/memory_plan.h"

#include <gtest/gtest.h>

#include "architecture_tables.h"
#include "option_tables.h"

namespace sb {
namespace {

/// Plans are built and counted, not run.
class CountingDevice final : public Device {
 public:
  std::string_view name() const override { return "counting"; }
  std::string describe() const override { return "{}"; }
  int n_threads() const override { return 1; }
  Result<std::unique_ptr<Device>> twin(int) const override { return std::make_unique<CountingDevice>(); }
  RunBytes measure(const Plan& plan, int64_t context) const override { return {uint64_t(plan_arena(plan).n_bytes), uint64_t(context)}; }
  Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan>) override { return err(Code::kInternal, {{"what", "compiled"}}); }
  Status fill(Program&, std::string_view, std::span<const float>) override { return {}; }
  Status submit(Program&, const Scalars&) override { return {}; }
  Result<bool> idle() override { return true; }
};

MemoryPlan planned(const char* name, int bits, int64_t context = 0, int kv_bits = 16) {
  const CountingDevice device;
  auto plan = plan_architecture(name, {bits, context, kv_bits}, device);
  EXPECT_TRUE(plan) << name << ": " << plan.error().message();
  return plan ? *plan : MemoryPlan();
}

TEST(MemoryPlan, ParametersAreThePublishedOnes) {
  struct Row {
    const char* name;
    double millions;
  };
  constexpr Row kRows[] = {{"bert-base", 109.5},     {"t5-small", 60.5},      {"llama-7b", 6738.4},   {"vit-base", 86.6},
                           {"whisper-small", 241.7}, {"smollm2-135m", 134.5}, {"gemma-3-270m", 268.1}};
  ASSERT_EQ(std::size(kRows), std::size(kArchitectures));
  for (const Row& row : kRows) EXPECT_NEAR(double(planned(row.name, 16).n_parameters) / 1e6, row.millions, 0.05) << row.name;
  for (const Architecture& a : kArchitectures) EXPECT_EQ(planned(a.name, 16).n_parameters, a.n_parameters) << a.name;
}

TEST(MemoryPlan, FloatsTakeTheirBytes) {
  for (const Architecture& a : kArchitectures) {
    // A block's end is at most 63 bytes.
    EXPECT_NEAR(planned(a.name, 16).bpw(), 16, 0.01) << a.name;
    EXPECT_NEAR(planned(a.name, 32).bpw(), 32, 0.01) << a.name;
  }
}

TEST(MemoryPlan, PlanesTakeTheirArrays) {
  const PlaneCode& coded3 = plane_format("coded3")->code;
  // Padding of blocks aside: planes, sv, c; su; filter.
  EXPECT_EQ(plane_blocks_bytes(coded3, 960, 576), plane_set_bytes(3, 960, 576) + 576 / 8 + 56 + 4 * 3 * 4 + 16);
  // By hand: bits of the linears and 4 of embedding and head by their shares (3.9 % of LLaMA-7B, 21 % of SmolLM2, 63 % of Gemma), and
  // 16/K + 16/N on top.
  struct Row {
    const char* name;
    int bits;
    double from, to;
  };
  constexpr Row kRows[] = {{"llama-7b", 2, 2.08, 2.09},   {"llama-7b", 3, 3.04, 3.05},     {"llama-7b", 4, 4.00, 4.02},
                           {"smollm2-135m", 2, 2.4, 2.5}, {"smollm2-135m", 3, 3.2, 3.3},   {"smollm2-135m", 4, 4.0, 4.1},
                           {"llama-7b", 8, 8.50, 8.51},   {"gemma-3-270m", 2, 3.25, 3.35}, {"bert-base", 3, 3.2, 3.4}};
  for (const Row& row : kRows) {
    const double bpw = planned(row.name, row.bits).bpw();
    EXPECT_TRUE(bpw >= row.from && bpw <= row.to) << row.name << " at " << row.bits << " bits: " << bpw;
  }
}

TEST(MemoryPlan, TheCacheHasItsPages) {
  // 32 layers, keys and values, 4096 wide, float16.
  EXPECT_EQ(planned("llama-7b", 4, 2048).bytes(Tag::kKv), uint64_t(32) * 2 * 4096 * 2 * 2048);
  EXPECT_EQ(planned("llama-7b", 4, 65).bytes(Tag::kKv), uint64_t(32) * 2 * 4096 * 2 * 64);
  EXPECT_EQ(planned("llama-7b", 4, 66).bytes(Tag::kKv), uint64_t(32) * 2 * 4096 * 2 * 128);
  EXPECT_EQ(planned("bert-base", 4).bytes(Tag::kKv), 0u);
  // An encoder's outputs are attended to by every layer: 12 layers, 768 wide.
  const uint64_t cross = uint64_t(12) * 2 * 768 * 2 * 1536;
  EXPECT_EQ(planned("whisper-small", 4, 448).bytes(Tag::kKv), cross + uint64_t(12) * 2 * 768 * 2 * 448);
}

TEST(MemoryPlan, TrueBitsOfTheCacheAt128) {
  struct Row {
    int bits;
    double per_element;
  };
  constexpr Row kRows[] = {{8, 8.125}, {4, 4.125}, {3, 3.125}, {2, 2.125}};
  constexpr int64_t kTokens = 68 + 32 * 10000;
  for (const Row& row : kRows) {
    const double window = double(kv_cache_bytes(1, 1, 128, 68, row.bits));
    EXPECT_EQ(window, 68 * 128 * 4);  // float16
    const double bits = 8 * (double(kv_cache_bytes(1, 1, 128, kTokens, row.bits)) - window);
    EXPECT_NEAR(bits / (2 * 128 * double(kTokens - 68)), row.per_element, 1e-9);
  }
}

TEST(MemoryPlan, PeakIsWhatIsThereAtOnce) {
  for (const Architecture& a : kArchitectures) {
    const MemoryPlan p = planned(a.name, 4);
    const uint64_t running = p.bytes(Tag::kKv) + p.bytes(Tag::kActivations) + p.bytes(Tag::kScratch);
    EXPECT_EQ(p.peak_bytes, p.bytes(Tag::kWeights) + std::max(running, p.bytes(Tag::kStaging))) << a.name;
    EXPECT_GT(p.bytes(Tag::kActivations), 0u) << a.name;
    EXPECT_EQ(p.by_rule, *a.config == '\0');
  }
}

TEST(MemoryPlan, RefusesWhatItDoesNotKnow) {
  const CountingDevice device;
  auto code = [](const auto& result) { return result ? "" : std::string(error_row(result.error().code()).name); };
  const auto unknown = plan_architecture("llama-8b", {4, 0, 16}, device);
  EXPECT_EQ(code(unknown), "kArgumentInvalid");
  EXPECT_NE(unknown.error().hint().find("llama-7b"), std::string::npos) << unknown.error().hint();
  EXPECT_EQ(code(plan_architecture("llama-7b", {0, 0, 16}, device)), "kOptionInvalid");
  EXPECT_EQ(code(Options::parse(R"({"bits": "5"})", kPlanOptions)), "kOptionInvalid");
  EXPECT_EQ(code(Options::parse(R"({"kv_bits": "6"})", kPlanOptions)), "kOptionInvalid");
  const auto options = Options::parse(R"({"bits": "3", "context": 512, "kv_bits": "4"})", kPlanOptions);
  ASSERT_TRUE(options);
  EXPECT_EQ(PlanOptions::of(*options).bits, 3);
  EXPECT_EQ(PlanOptions::of(*options).kv_bits, 4);
  EXPECT_EQ(PlanOptions::of(*Options::parse("", kPlanOptions)).bits, 0);
}

}  // namespace
}  // namespace sb
