// Tuning finds its way back: scales that were spoilt on purpose come close to what they were, for every family.
#include "quantize/tune.h"

#include <gtest/gtest.h>

#include <random>

#include "device/cpu/cpu_device.h"
#include "formats/decode.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

class TuneFamily : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    FolderHost host{std::string(SB_TESTS) + "/golden/" + GetParam()};
    source_ = open(host.load(Loading::folder(GetParam())));
    auto device = make_cpu_device({2, "auto"});
    ASSERT_TRUE(device);
    device_ = std::move(*device);
    ids_ = random_ids(1024, source_.graph->shape().vocab);
    QuantizerOptions options;
    options.formats.linears = "plain4";  // good enough that what is spoilt is most of what is wrong, and quickly made
    options.formats.embedding = "source";
    options.context = 32;
    options.n_threads = 2;
    auto quantizer = Quantizer::create(*source_.graph, *device_, ids_, {}, options);
    ASSERT_TRUE(quantizer) << quantizer.error().message();
    quantizer_ = std::move(*quantizer);
    for (;;) {
      auto more = quantizer_->step();
      ASSERT_TRUE(more) << more.error().message();
      if (!*more) break;
    }
    groups_ = quantizer_->take_finished();
    std::mt19937 random(3);
    for (std::vector<uint16_t>* scales : scales_of_groups()) {
      for (uint16_t& h : *scales) h = float_to_half(half_to_float(h) * std::exp(0.2f * (float(random() % 1000) / 500 - 1)));
    }
  }
  std::vector<std::vector<uint16_t>*> scales_of_groups() {
    std::vector<std::vector<uint16_t>*> all;
    for (const auto& group : groups_) all.insert(all.end(), {&group->base.row_scale, &group->base.column_scale});
    return all;
  }
  std::unique_ptr<Tuner> create(int64_t n_steps) {
    TuneOptions tune;
    tune.context = 32;
    tune.n_steps = n_steps;
    tune.batch_tokens = 256;
    tune.rate = 3e-2;
    tune.n_threads = 2;
    auto tuner = Tuner::create(*source_.graph, *device_, quantizer_->plan(), groups_, quantizer_->substitutes(), ids_, {}, tune);
    EXPECT_TRUE(tuner) << tuner.error().message();
    return std::move(*tuner);
  }
  /// At most n units of work; false when all is done.
  static bool run(Tuner& tuner, int n) {
    for (double last = tuner.progress(); n > 0; --n) {
      auto more = tuner.step();
      EXPECT_TRUE(more) << more.error().message();
      EXPECT_GE(tuner.progress(), last);
      last = tuner.progress();
      if (!more || !*more) return false;
    }
    return true;
  }

  Opened source_;
  std::unique_ptr<Device> device_;
  std::vector<int32_t> ids_;
  std::unique_ptr<Quantizer> quantizer_;
  std::vector<std::shared_ptr<FinishedGroup>> groups_;
};

TEST_P(TuneFamily, SpoiltScalesAreMended) {
  auto tuner = create(20);
  run(*tuner, 1 << 20);
  const TuneReport& report = tuner->report();
  EXPECT_GT(report.n_steps, 0);
  EXPECT_LT(report.kl_after, 0.7 * report.kl_before);
}

// Windows' order, moments and the best state outlive the tuner: cut wherever, within a step of the optimiser too, it ends alike.
TEST_P(TuneFamily, ACutRunEndsAsAWholeOne) {
  std::vector<std::vector<uint16_t>> spoilt, tuned;
  for (const std::vector<uint16_t>* scales : scales_of_groups()) spoilt.push_back(*scales);
  auto whole = create(6);
  run(*whole, 1 << 20);
  EXPECT_GT(whole->report().n_steps, 0);
  for (std::vector<uint16_t>* scales : scales_of_groups()) {
    tuned.push_back(*scales);
    *scales = spoilt[tuned.size() - 1];
  }
  EXPECT_NE(tuned, spoilt);
  std::vector<std::byte> checkpoint;
  std::unique_ptr<Tuner> tuner;
  int n_cuts = -1;
  for (bool more = true; more; ++n_cuts) {
    tuner = create(6);
    if (!checkpoint.empty()) {
      CheckpointReader from(checkpoint);
      ASSERT_TRUE(tuner->restore(from));
    }
    more = run(*tuner, 12 + n_cuts);  // a whole step at least
    CheckpointWriter to;
    tuner->save(to);
    checkpoint = to.next(size_t(1) << 30);
  }
  EXPECT_GE(n_cuts, 4);
  EXPECT_EQ(tuner->report().measured, whole->report().measured);
  EXPECT_EQ(tuner->report().n_steps, whole->report().n_steps);
  for (size_t i = 0; i < tuned.size(); ++i) EXPECT_EQ(*scales_of_groups()[i], tuned[i]) << i;
  for (const auto& [name, numbers] : whole->vectors()) EXPECT_EQ(tuner->vectors().at(name).value, numbers.value) << name;
}

TEST(Tune, ATextOfOneWindowIsRefused) {
  FolderHost host{std::string(SB_TESTS) + "/golden/llama"};
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
