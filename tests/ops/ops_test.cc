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

// Sessions check drafted tokens together and promise the answer of one at a time: up to Device::n_alike() tokens, a pass gives each of them
// the bits that a pass of its own gives.
TEST_P(Ops, FewTokensAnswerAsIfAlone) {
  struct Case {
    std::string name;
    int64_t width;  // of x
    std::function<Ref(Plan&, Sources&, Ref x)> build;
    int64_t position = 0;
    int kv_width = 0, head_dim = 1;
  };
  std::vector<Case> cases;
  for (const PlaneFormat& format : plane_formats()) {
    cases.push_back({format.name, 576, [&](Plan& p, Sources& s, Ref x) {
                       return matmul(p, x, s.planes(format.name, "", 576, 576, 0, PlaneOrder::kBlocks));
                     }});
  }
  for (size_t d = 0; d < kDtypeCount; ++d) {
    const Dtype dtype = Dtype(d);
    if (dtype == Dtype::kI32 || dtype == Dtype::kU8 || dtype == Dtype::kPlanes) continue;
    const int64_t k = dtype_row(dtype).block == 1 ? 515 : dtype_row(dtype).block == 32 ? 544 : 512;
    cases.push_back({dtype_name(dtype), k, [=](Plan& p, Sources& s, Ref x) { return matmul(p, x, s.w(dtype, 101, k)); }});
  }
  struct Heads {
    int32_t heads, kv_heads, head_dim, window;
    int64_t position;
  };
  for (const Heads& h :
       {Heads{4, 4, 16, 0, 0}, {9, 3, 64, 0, 200}, {9, 3, 64, 0, 383}, {4, 1, 256, 100, 126}, {32, 1, 80, 50, 190}, {6, 3, 20, 33, 62}}) {
    const int32_t kv_width = h.kv_heads * h.head_dim, q_width = h.heads * h.head_dim;
    cases.push_back({"attention, " + std::to_string(h.heads) + " heads, window " + std::to_string(h.window) + ", position " +
                         std::to_string(h.position),
                     q_width + 2 * kv_width,
                     [=](Plan& p, Sources&, Ref x) {
                       cache_write(p, p.columns(x, q_width, kv_width), {0, KvPart::kKeys});
                       cache_write(p, p.columns(x, q_width + kv_width, kv_width), {0, KvPart::kValues});
                       return attention(p, p.columns(x, 0, q_width),
                                        {.layer = 0,
                                         .n_heads = h.heads,
                                         .n_kv_heads = h.kv_heads,
                                         .head_dim = h.head_dim,
                                         .scale = 0.125f,
                                         .window = h.window,
                                         .softcap = 0});
                     },
                     h.position, kv_width, h.head_dim});
  }
  cases.push_back({"norms and activations", 515, [](Plan& p, Sources& s, Ref x) {
                     const Ref y = glu(p, rms_norm(p, x, s.v(515), RmsNorm{1e-6f, 0}), x, {Activation::kSilu});
                     return layer_norm(p, softcap(p, y, 7), s.v(515), s.v(515, 0), LayerNorm{1e-5f});
                   }});
  for (const Case& c : cases) {
    std::vector<float> of_one_thread;
    for (const int threads : {1, 3}) {
      auto device = make_cpu_device({threads, GetParam(), false});
      ASSERT_TRUE(device);
      const int64_t n_alike = (*device)->n_alike();
      ASSERT_GT(n_alike, 1);
      std::mt19937 random(5);
      std::normal_distribution<float> normal;
      std::vector<float> x(size_t(n_alike * c.width));
      for (float& v : x) v = normal(random);
      auto run = [&](int64_t first, int64_t n, KvPages& kv) {
        auto plan = std::make_unique<Plan>(n);
        Sources sources(*plan, 11);
        plan->output("y", c.build(*plan, sources, plan->input("x", c.width)));
        auto program = (*device)->compile(std::move(plan));
        EXPECT_TRUE(program);
        EXPECT_TRUE((*device)->fill(**program, "x", std::span(x).subspan(size_t(first * c.width), size_t(n * c.width))));
        EXPECT_TRUE((*device)->submit(**program, {{}, int32_t(c.position + first), &kv}));
        const std::span<float> y = (*program)->output("y");
        return std::vector<float>(y.begin(), y.end());
      };
      KvPages kv(1, std::max(1, c.kv_width), c.head_dim, true);
      ASSERT_TRUE(kv.reserve(c.position + n_alike));
      auto unused = Plan(1);
      if (c.kv_width) Sources(unused, 3).fill(kv, 1, c.position);
      std::vector<float> alone;
      for (int64_t t = 0; t < n_alike; ++t) {
        const std::vector<float> y = run(t, 1, kv);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      if (of_one_thread.empty()) of_one_thread = alone;
      EXPECT_EQ(alone, of_one_thread) << c.name << ", " << threads << " threads";
      for (int64_t n = 2; n <= n_alike; ++n) {
        const std::vector<float> together = run(0, n, kv);
        EXPECT_EQ(together, std::vector<float>(alone.begin(), alone.begin() + int64_t(together.size())))
            << c.name << ", " << n << " tokens, " << threads << " threads";
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
