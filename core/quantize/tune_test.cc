// Tuning finds its way back: scales that were spoilt on purpose come close to what they were, for every family.
#include "quantize/tune.h"

#include <gtest/gtest.h>

#include <random>

#include "device/cpu/cpu_device.h"
#include "formats/decode.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

class TuneFamily : public testing::TestWithParam<const char*> {};

TEST_P(TuneFamily, SpoiltScalesAreMended) {
  Host host{std::string(SB_TESTS) + "/golden/" + GetParam()};
  const Opened source = open(host.load(Loading::folder(GetParam())));
  auto device = make_cpu_device({2, "auto"});
  ASSERT_TRUE(device);
  const std::vector<int32_t> ids = random_ids(1024, source.graph->shape().vocab);
  QuantizerOptions options;
  options.formats.linears = "plain4";  // good enough that what is spoilt is most of what is wrong, and quickly made
  options.formats.embedding = "source";
  options.context = 32;
  options.n_threads = 2;
  auto quantizer = Quantizer::create(*source.graph, **device, ids, {}, options);
  ASSERT_TRUE(quantizer) << quantizer.error().message();
  for (;;) {
    auto more = (*quantizer)->step();
    ASSERT_TRUE(more) << more.error().message();
    if (!*more) break;
  }
  const auto groups = (*quantizer)->take_finished();
  std::mt19937 random(3);
  for (const auto& group : groups) {
    for (std::vector<uint16_t>* scales : {&group->base.row_scale, &group->base.column_scale}) {
      for (uint16_t& h : *scales) h = float_to_half(half_to_float(h) * std::exp(0.2f * (float(random() % 1000) / 500 - 1)));
    }
  }

  TuneOptions tune;
  tune.context = 32;
  tune.n_steps = 20;
  tune.batch_tokens = 256;
  tune.rate = 3e-2;
  tune.n_threads = 2;
  auto tuner = Tuner::create(*source.graph, **device, (*quantizer)->plan(), groups, (*quantizer)->substitutes(), ids, {}, tune);
  ASSERT_TRUE(tuner) << tuner.error().message();
  double last = 0;
  for (;;) {
    auto more = (*tuner)->step();
    ASSERT_TRUE(more) << more.error().message();
    EXPECT_GE((*tuner)->progress(), last);
    last = (*tuner)->progress();
    if (!*more) break;
  }
  const TuneReport& report = (*tuner)->report();
  EXPECT_GT(report.n_steps, 0);
  EXPECT_LT(report.kl_after, 0.7 * report.kl_before);
}

TEST(Tune, ATextOfOneWindowIsRefused) {
  Host host{std::string(SB_TESTS) + "/golden/llama"};
  const Opened source = open(host.load(Loading::folder("llama")));
  auto device = make_cpu_device({1, "auto"});
  ASSERT_TRUE(device);
  auto plan = plan_matrices(*source.graph);
  ASSERT_TRUE(plan);
  auto tuner = Tuner::create(*source.graph, **device, *plan, {}, {}, random_ids(40, source.graph->shape().vocab), {}, {.context = 32});
  ASSERT_FALSE(tuner);
  EXPECT_EQ(tuner.error().code(), Code::kTextTooShort);
}

INSTANTIATE_TEST_SUITE_P(Families, TuneFamily, testing::Values("llama", "mistral", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sb
