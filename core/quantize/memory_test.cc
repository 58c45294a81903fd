// What quantising takes: the sum that quantizer_bytes() says, held against the books, and done for a model of 7 billion weights.
#include "base/memory.h"

#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

uint64_t scratch(uint64_t TagBooks::* which) { return memory_report().by_tag[size_t(Tag::kScratch)].*which; }

TEST(QuantizerMemory, ThePeakIsWhatIsSaid) {
  for (const char* family : {"llama", "gemma3", "qwen3", "gpt2"}) {
    for (const auto [sequential, sets_aside] : {std::pair(true, false), {false, false}, {true, true}}) {
      FolderHost host{std::string(SB_TESTS) + "/golden/" + family};
      const Opened source = open(host.load(Loading::folder(family)));
      auto device = make_cpu_device({1, "auto"});
      ASSERT_TRUE(device);
      const std::vector<int32_t> ids = random_ids(8192, source.graph->shape().vocab);
      QuantizerOptions options;
      options.context = 64;
      options.sequential = sequential;
      MemoryScratch host_scratch;
      ScratchSpace space(host_scratch);
      if (sets_aside) options.aside = &space;
      const uint64_t before = scratch(&TagBooks::current);
      memory_reset_peak();
      uint64_t said = 0;
      {
        auto q = Quantizer::create(*source.graph, **device, ids, {}, options);
        ASSERT_TRUE(q) << q.error().message();
        said = quantizer_bytes((*q)->plan(), options, source.graph->shape().hidden, size_t((*q)->n_windows())).total();
        for (;;) {
          auto more = (*q)->step();
          ASSERT_TRUE(more) << more.error().message();
          if (!*more) break;
        }
      }
      // What is left is the device's own.
      const uint64_t kernels = scratch(&TagBooks::current) - before, peak = scratch(&TagBooks::peak) - before - kernels;
      EXPECT_LE(peak, said) << family << sequential << sets_aside;
      EXPECT_GT(peak, sets_aside ? said / 2 : said * 2 / 3) << family << sequential << sets_aside;
    }
  }
}

ModelPlan decoder(int64_t n_layers, int64_t d, int64_t kv, int64_t mlp, int64_t vocab) {
  ModelPlan plan;
  plan.n_layers = n_layers;
  auto add = [&](int64_t layer, int64_t n, int64_t k, bool is_embedding, bool is_head) {
    GroupPlan& group = plan.groups.emplace_back();
    group.n_rows = {n};
    group.n_columns = k;
    group.layer = layer;
    group.is_embedding = is_embedding;
    group.is_head = is_head;
  };
  add(-1, vocab, d, true, false);
  for (int64_t layer = 0; layer < n_layers; ++layer) {
    add(layer, d + 2 * kv, d, false, false);
    add(layer, d, d, false, false);
    add(layer, 2 * mlp, d, false, false);
    add(layer, d, mlp, false, false);
  }
  add(n_layers, vocab, d, false, true);
  return plan;
}

// Touvron et al. 2023: 7B has 32 layers, D 4096, F 11008, V 32000; its file holds 2 bytes a weight.
TEST(QuantizerMemory, SevenBillionWeightsFitTwentyFourGigabytes) {
  const ModelPlan plan = decoder(32, 4096, 4096, 11008, 32000);
  QuantizerOptions options;
  MemoryScratch host_scratch;
  ScratchSpace space(host_scratch);
  const uint64_t n_windows = 10240 / 512, d = 4096, f = 11008;
  uint64_t n_weights = 0, n_layer = 0;
  for (const GroupPlan& group : plan.groups) {
    n_weights += uint64_t(group.n_weights());
    n_layer += group.layer == 0 ? uint64_t(group.n_weights()) : 0;
  }
  const uint64_t source = 2 * n_weights, in_memory = quantizer_bytes(plan, options, int64_t(d), n_windows).total();
  // The float layer, its moments, and a fifth of the source.
  EXPECT_LT(in_memory, 4 * n_layer + 4 * (3 * d * d + f * f) + source / 5);
  options.aside = &space;
  const uint64_t taken = quantizer_bytes(plan, options, int64_t(d), 50 * n_windows).total();  // whatever the text
  // The float layer and its moments, and a fifth more of both.
  EXPECT_LT(taken, (4 * n_layer + 4 * (3 * d * d + f * f)) * 6 / 5);
  // With a window's activations (less than 32 values as wide as the MLP) and a layer's planes.
  EXPECT_LT(source + in_memory + 512 * f * 4 * 32 + n_layer / 2, uint64_t(24'000'000'000));
}

}  // namespace
}  // namespace sb
