// The quantiser on a whole tiny model: what comes out is a folder that loads, agrees with its substitutes, and costs what it says.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <random>

#include "device/cpu/cpu_device.h"
#include "io/loading.h"
#include "io/plane_store.h"
#include "models/registry.h"
#include "quantize/evaluate.h"
#include "quantize/folder_quantizer.h"

namespace sb {
namespace {

/// Files in memory, or of a folder on disk when they are not there.
struct Host {
  std::string root;
  std::map<std::string, std::string> files = {};

  const std::string* find(const std::string& name) {
    if (auto found = files.find(name); found != files.end()) return &found->second;
    if (root.empty()) return nullptr;
    FILE* file = std::fopen((root + "/" + name).c_str(), "rb");
    if (!file) return nullptr;
    std::string bytes;
    char part[1 << 16];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
    std::fclose(file);
    return &(files[name] = std::move(bytes));
  }
  void write(const FolderWrite& w) {
    std::string& file = files[w.file];
    if (file.size() < w.offset + w.bytes.size()) file.resize(w.offset + w.bytes.size());
    std::copy_n(reinterpret_cast<const char*>(w.bytes.data()), w.bytes.size(), file.begin() + int64_t(w.offset));
  }
  Result<ModelFiles> load(Loading loading) {
    for (;;) {
      SB_TRY(const ReadRequest wanted, loading.next());
      if (wanted.kind == ReadRequest::Kind::kNothing) return loading.finish();
      const std::string* file = find(wanted.file);
      if (wanted.kind == ReadRequest::Kind::kSize) {
        loading.size_is(file ? std::optional<uint64_t>(file->size()) : std::nullopt);
      } else {
        const size_t n = std::min(wanted.dst.size(), file->size() - std::min<size_t>(file->size(), wanted.offset));
        std::copy_n(reinterpret_cast<const std::byte*>(file->data()) + wanted.offset, n, wanted.dst.begin());
        loading.bytes_are(n);
      }
    }
  }
};

struct Opened {
  std::unique_ptr<ModelFiles> files;
  std::unique_ptr<ModelGraph> graph;
};
Opened open(Result<ModelFiles> files) {
  EXPECT_TRUE(files) << files.error().message();
  Opened out;
  out.files = std::make_unique<ModelFiles>(std::move(*files));
  const Family* family = nullptr;
  auto graph = open_model(out.files->config, out.files->weights, &family);
  EXPECT_TRUE(graph) << graph.error().message();
  out.graph = std::move(*graph);
  return out;
}

std::vector<int32_t> random_ids(int64_t n, int64_t vocab) {
  std::mt19937 random(11);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(int32_t(random() % uint32_t(vocab)));
  return ids;
}

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
  Host quantise(FolderOptions options) {
    options.context = 64;
    options.n_threads = 2;
    Json config = source_.files->config.values();
    config["quantization_config"] = {
        {"quant_method", "subbyte"}, {"version", 1}, {"gguf_conventions", std::string_view(GetParam()) == "gpt2"}};
    auto q = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {{"config.json", json_text(config)}}}, *device_, ids_,
                                     {}, options);
    EXPECT_TRUE(q) << q.error().message();
    Host out;
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

  Host source_host_;
  Opened source_;
  std::unique_ptr<Device> device_;
  std::vector<int32_t> ids_;
  Json report_;
};

TEST_P(QuantizeFamily, MoreBitsLoseLess) {
  double last = 1e9;
  for (const char* bits : {"2", "3", "4"}) {
    FolderOptions options;
    options.bits = bits;
    Host folder = quantise(options);
    const Opened made = open(folder.load(Loading::folder("made")));
    const EvaluationReport r = loss(*made.graph);
    EXPECT_LT(r.kl, last) << bits;
    EXPECT_GT(r.kl, 0) << bits;
    last = r.kl;
    // Weights on disk are what the report says: nothing uncounted.
    EXPECT_EQ(made.files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>()) << bits;
  }
}

TEST_P(QuantizeFamily, TheSameSeedGivesTheSameBytes) {
  FolderOptions options;
  options.bits = "2";
  const Host a = quantise(options), b = quantise(options);
  EXPECT_EQ(a.files, b.files);
  options.seed = 1;
  EXPECT_NE(quantise(options).files, a.files);
}

TEST_P(QuantizeFamily, BaseAloneIsAModelAndTheRefinementABetterOne) {
  FolderOptions options;
  options.refine = true;
  Host folder = quantise(options);
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
  EXPECT_EQ(base.files->weights.n_bytes() - before, drop_refinement(base.files->weights));
  EXPECT_EQ(loss(*base.graph).kl, base_kl);
}

TEST_P(QuantizeFamily, MixedKeepsItsBudget) {
  FolderOptions options;
  options.bits = "mixed";
  options.bpw = 20;
  quantise(options);  // more than the largest formats need
  const uint64_t most = report_["weight_bytes"];
  options.bpw = 0;
  options.n_bytes = most * 9 / 10;
  Host folder = quantise(options);
  EXPECT_LE(report_["weight_bytes"].get<uint64_t>(), options.n_bytes);
  EXPECT_GT(report_["weight_bytes"].get<uint64_t>(), most * 7 / 10);
  EXPECT_EQ(open(folder.load(Loading::folder("made"))).files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>());
  // The same formats again without a sensitivity run give the same bytes.
  options.allocation = json_text(report_["formats"]);
  EXPECT_EQ(quantise(options).files, folder.files);
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
  options.embedding = "q5_k";
  auto format = FolderQuantizer::create({source_.graph.get(), &source_.files->weights, {}}, *device_, ids_, {}, options);
  ASSERT_FALSE(format);
  EXPECT_EQ(format.error().code(), Code::kFormatUnknown);
}

INSTANTIATE_TEST_SUITE_P(Families, QuantizeFamily, testing::Values("llama", "gemma3", "qwen2", "qwen3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sb
