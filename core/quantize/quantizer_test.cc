// The quantiser on a whole tiny model: what comes out is a folder that loads, agrees with its substitutes, and costs what it says.
#include <gtest/gtest.h>

#include <numeric>

#include "device/cpu/cpu_device.h"
#include "io/plane_store.h"
#include "quantize/evaluate.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

class QuantizeFamily : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    source_host_.root = std::string(SB_TESTS) + "/golden/" + GetParam();
    source_ = open(source_host_.load(Loading::folder(GetParam())));
    auto device = make_cpu_device({2, "auto"});
    ASSERT_TRUE(device);
    device_ = std::move(*device);
    ids_ = random_ids(2048, source_.graph->shape().vocab);
  }
  /// Quantises to files in memory.
  FolderHost quantise(FolderOptions options) {
    options.context = 64;
    options.n_threads = n_threads_;
    Json config = source_.files->config.values();
    config["quantization_config"] = {
        {"quant_method", "subbyte"}, {"version", 1}, {"gguf_conventions", std::string_view(GetParam()) == "gpt2"}};
    auto q = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {{"config.json", json_text(config)}}}, *device_, ids_,
                                     {}, options);
    EXPECT_TRUE(q) << q.error().message();
    FolderHost out;
    for (;;) {
      auto more = (*q)->step();
      EXPECT_TRUE(more) << more.error().message();
      FolderWrite write;
      while ((*q)->next_write(write)) out.write(write);
      if (!more || !*more) break;
    }
    report_ = *json_parse((*q)->report_json(), "report");
    return out;
  }
  EvaluationReport loss(const ModelGraph& graph) {
    const std::vector<int32_t> held_out = random_ids(600, source_.graph->shape().vocab);
    auto e = Evaluation::create({{&graph}}, source_.graph.get(), *device_, held_out, {}, {.context = 64});
    EXPECT_TRUE(e) << e.error().message();
    for (;;) {
      auto more = e->step();
      EXPECT_TRUE(more) << more.error().message();
      if (!more || !*more) return e->report(0);
    }
  }

  FolderHost source_host_;
  Opened source_;
  std::unique_ptr<Device> device_;
  std::vector<int32_t> ids_;
  Json report_;
  int n_threads_ = 2;
};

TEST_P(QuantizeFamily, MoreBitsLoseLess) {
  double last = 1e9;
  for (const char* bits : {"2", "3", "4"}) {
    FolderOptions options;
    options.bits = bits;
    FolderHost folder = quantise(options);
    const Opened made = open(folder.load(Loading::folder("made")));
    const EvaluationReport r = loss(*made.graph);
    EXPECT_LT(r.kl, last) << bits;
    EXPECT_GT(r.kl, 0) << bits;
    last = r.kl;
    // Weights on disk are what the report says: nothing uncounted.
    EXPECT_EQ(made.files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>()) << bits;
  }
}

TEST_P(QuantizeFamily, EveryFormatByItsName) {
  struct Row {
    const char *bits, *embedding;
    double at_most;  // KL in nats; the families' weights are small, and so is what they lose
    bool refine = false;
  };
  for (const Row& row : {Row{"plain2", "plain3", 0.1}, Row{"plain3", "plain4", 0.05}, Row{"plain4", "rows8", 0.01},
                         Row{"rows8", "plain2", 0.05}, Row{"plain2", "rows8", 0.03, true}}) {
    FolderOptions options;
    options.bits = row.bits;
    options.embedding = row.embedding;
    options.refine = row.refine;
    const Opened made = open(quantise(options).load(Loading::folder("made")));
    EXPECT_LT(loss(*made.graph).kl, row.at_most) << row.bits << " " << row.embedding;
    EXPECT_EQ(made.files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>()) << row.bits << " " << row.embedding;
  }
}

TEST_P(QuantizeFamily, AnAllocationTakesEveryFormat) {
  FolderOptions options;
  options.bits = "2";
  quantise(options);
  Json formats = report_["formats"];
  const char* const kNames[] = {"rows8", "source", "plain2", "coded3", "plain4"};
  size_t i = 0;
  for (auto& [name, format] : formats.items()) format = kNames[i++ % std::size(kNames)];
  options.allocation = json_text(formats);
  FolderHost folder = quantise(options);
  EXPECT_EQ(report_["formats"], formats);
  EXPECT_EQ(open(folder.load(Loading::folder("made"))).files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>());
}

TEST_P(QuantizeFamily, TheSameSeedGivesTheSameBytes) {
  FolderOptions options;
  options.bits = "2";
  const FolderHost a = quantise(options), b = quantise(options);
  EXPECT_EQ(a.files, b.files);
  options.seed = 1;
  EXPECT_NE(quantise(options).files, a.files);
}

TEST_P(QuantizeFamily, ThreadsDoNotChangeTheBytes) {
  FolderOptions options;
  options.bits = "2";
  const FolderHost two = quantise(options);
  auto device = make_cpu_device({1, "auto"});
  ASSERT_TRUE(device);
  device_ = std::move(*device);
  n_threads_ = 1;
  EXPECT_EQ(quantise(options).files, two.files);
}

TEST_P(QuantizeFamily, BaseAloneIsAModelAndTheRefinementABetterOne) {
  FolderOptions options;
  options.bits = "2";
  options.refine = true;
  FolderHost folder = quantise(options);
  Opened base = open(folder.load(Loading::folder("made", {}, PlaneSets::kBase)));
  const Opened full = open(folder.load(Loading::folder("made")));
  const double base_kl = loss(*base.graph).kl, full_kl = loss(*full.graph).kl;
  EXPECT_LT(full_kl, base_kl);
  // The base model refined while it is open is the full one, and dropped it is the base again.
  auto refinement = folder.load(Loading::refinement("made", *base.files->index));
  ASSERT_TRUE(refinement) << refinement.error().message();
  const uint64_t before = base.files->weights.n_bytes();
  ASSERT_TRUE(attach_refinement(*base.files->index, std::move(refinement->weights), base.files->weights));
  EXPECT_EQ(loss(*base.graph).kl, full_kl);
  EXPECT_EQ(base.files->weights.n_bytes() - before, drop_refinement(*base.files->index, base.files->weights));
  EXPECT_EQ(loss(*base.graph).kl, base_kl);
}

// A base is the model that quantising to its bits makes, byte for byte: the refinement costs it nothing.
TEST_P(QuantizeFamily, ABaseIsWhatItWouldBeAlone) {
  FolderOptions options;
  options.bits = "2";
  const FolderHost alone = quantise(options);
  options.refine = true;
  const FolderHost refined = quantise(options);
  for (const auto& [name, bytes] : alone.files) {
    if (name.starts_with("base-")) EXPECT_EQ(bytes, refined.files.at(name)) << name;
  }
}

// Tensors larger than a shard lie in pieces and come back whole.
TEST_P(QuantizeFamily, NoShardIsLargerThanAllowed) {
  FolderOptions options;
  options.bits = "2";
  options.refine = true;
  const double in_one = loss(*open(quantise(options).load(Loading::folder("made"))).graph).kl;
  options.shard_bytes = 8192;
  FolderHost folder = quantise(options);
  EXPECT_NE(folder.files.at(kFolderIndexFile).find("\"split\""), std::string::npos);
  for (const auto& [name, bytes] : folder.files) {
    if (name.ends_with(".safetensors")) EXPECT_LE(bytes.size(), options.shard_bytes) << name;
  }
  EXPECT_EQ(loss(*open(folder.load(Loading::folder("made"))).graph).kl, in_one);
  EXPECT_TRUE(folder.load(Loading::verify("made")));
  EXPECT_TRUE(folder.load(Loading::shapes("made", Container::kFolder)));
}

TEST_P(QuantizeFamily, MixedKeepsItsBudget) {
  FolderOptions options;
  options.bits = "mixed";
  options.bpw = 20;
  quantise(options);  // more than the largest formats need
  const uint64_t most = report_["weight_bytes"];
  options.bpw = 0;
  options.n_bytes = most * 9 / 10;
  FolderHost folder = quantise(options);
  EXPECT_LE(report_["weight_bytes"].get<uint64_t>(), options.n_bytes);
  EXPECT_GT(report_["weight_bytes"].get<uint64_t>(), most * 7 / 10);
  EXPECT_EQ(open(folder.load(Loading::folder("made"))).files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>());
  // The same formats again without a sensitivity run give the same bytes.
  options.allocation = json_text(report_["formats"]);
  EXPECT_EQ(quantise(options).files, folder.files);
}

TEST_P(QuantizeFamily, ATunedFolderIsWholeAndAsLarge) {
  FolderOptions options;
  options.bits = "2";
  FolderHost plain = quantise(options);
  options.tune = true;
  options.tune_steps = 2;
  FolderHost folder = quantise(options);
  const Json tuning = report_["tuning"];
  EXPECT_LE(tuning["kl_after"].get<double>(), tuning["kl_before"].get<double>());
  // It loads, so every hash is right, and only scales and vectors may differ.
  const Opened before = open(plain.load(Loading::folder("plain"))), made = open(folder.load(Loading::folder("made")));
  bool differs = false;
  for (const auto& tensor : made.files->weights.tensors()) {
    const WeightTensor* other = before.files->weights.find(tensor->name);
    ASSERT_TRUE(other) << tensor->name;
    ASSERT_EQ(other->block.size(), tensor->block.size()) << tensor->name;
    const bool same = std::ranges::equal(other->block.bytes(), tensor->block.bytes());
    differs = differs || !same;
    if (!tensor->name.ends_with(".sv") && !tensor->name.ends_with(".c") && tensor->shape.rank() > 1) EXPECT_TRUE(same) << tensor->name;
  }
  EXPECT_EQ(differs, tuning["steps"].get<int64_t>() > 0);
}

TEST_P(QuantizeFamily, RefusalsSayWhatIsWrong) {
  FolderOptions options;
  options.bits = "mixed";
  options.n_bytes = 100;
  options.n_threads = 1;
  auto small = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, ids_, {}, options);
  ASSERT_FALSE(small);
  EXPECT_EQ(small.error().code(), Code::kBudgetTooSmall);
  auto text = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, std::span(ids_).first(20), {}, {});
  ASSERT_FALSE(text);
  EXPECT_EQ(text.error().code(), Code::kTextTooShort);
  options = {};
  options.bits = "2";
  options.tune = options.refine = true;
  auto both = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, ids_, {}, options);
  ASSERT_FALSE(both);
  EXPECT_EQ(both.error().code(), Code::kOptionInvalid);
  options.refine = false;
  auto one = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, std::span(ids_).first(700), {}, options);
  ASSERT_FALSE(one);  // one window to learn from, none to hold out
  EXPECT_EQ(one.error().code(), Code::kTextTooShort);
  // A refinement is of 2 bits, or of planes by their name.
  struct Row {
    const char *bits, *allocation, *option;
  };
  for (const Row& row : {Row{"3", "", "bits"}, {"4", "", "bits"}, {"mixed", "", "bits"}, {"rows8", "", "bits"}, {"2", "{}", "refine"}}) {
    options = {};
    options.bits = row.bits;
    options.bpw = 8;
    options.allocation = row.allocation;
    options.refine = true;
    auto refined = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, ids_, {}, options);
    ASSERT_FALSE(refined) << row.bits;
    EXPECT_EQ(refined.error().code(), Code::kOptionInvalid) << row.bits;
    EXPECT_TRUE(refined.error().message().starts_with("Option \"" + std::string(row.option))) << refined.error().message();
  }
  options = {};
  options.embedding = "q5_k";
  auto format = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, ids_, {}, options);
  ASSERT_FALSE(format);
  EXPECT_EQ(format.error().code(), Code::kFormatUnknown);
}

TEST(Windows, AreThoseOfLlamaCpp) {
  std::vector<int32_t> ids(24);
  std::iota(ids.begin(), ids.end(), 0);
  using Windows = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(windows_of(ids, 8, {}), (Windows{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}, {16, 17, 18, 19, 20, 21, 22, 23}}));
  // Its stream is BOS, 0, 1, …, cut every 8 tokens, and then the first of each window becomes BOS.
  const std::vector<int32_t> bos = {99};
  EXPECT_EQ(windows_of(ids, 8, bos),
            (Windows{{99, 0, 1, 2, 3, 4, 5, 6}, {99, 8, 9, 10, 11, 12, 13, 14}, {99, 16, 17, 18, 19, 20, 21, 22}}));
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizeFamily, testing::Values("llama", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sb
