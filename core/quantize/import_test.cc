// Models of few levels, and models that other quantisers made: loaded, run, and put into a folder of ours.
#include "quantize/import.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <random>

#include "device/cpu/cpu_device.h"
#include "io/synthetic_foreign.h"
#include "quantize/evaluate.h"
#include "quantize/test_models.h"

namespace sb {
namespace {

using namespace testing_files;

std::string file_text(const std::string& path) {
  FILE* file = std::fopen(path.c_str(), "rb");
  SB_ASSERT(file);
  std::string bytes;
  char part[1 << 16];
  for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) bytes.append(part, n);
  std::fclose(file);
  return bytes;
}

Opened open(const Files& folder) { return open(load_folder_files(folder)); }

/// The tensors that stand for a linear layer X of weights [N, K], and those weights as float32.
struct Replacement {
  std::vector<ForeignTensor> tensors;
  std::vector<float> weights;
};
using Replace = std::function<Replacement(const std::string& x, int64_t n, int64_t k, uint32_t seed)>;

/// A small Llama with other linear layers: as the replacement writes them, and in float32.
struct Pair {
  Files folder, exact;
};
Pair llama_with(const std::string& quantization, const Replace& replace) {
  const std::string root = std::string(SB_TESTS) + "/golden/llama/";
  Json config = *json_parse(file_text(root + "config.json"), "config");
  const std::string model = file_text(root + "model.safetensors");
  const auto source = safetensors_read(std::as_bytes(std::span(model)), "model");
  SB_ASSERT(source);
  std::vector<ForeignTensor> tensors, exact;
  uint32_t seed = 1;
  for (const auto& t : source->tensors()) {
    const std::string bytes(reinterpret_cast<const char*>(t->block.data()), t->block.size());
    const ForeignTensor same{t->name, t->dtype, t->shape, bytes};
    if (!t->name.ends_with("_proj.weight")) {
      tensors.push_back(same);
      exact.push_back(same);
      continue;
    }
    const std::string x = t->name.substr(0, t->name.size() - std::string_view(".weight").size());
    const Replacement made = replace(x, t->shape[0], t->shape[1], seed++);
    tensors.insert(tensors.end(), made.tensors.begin(), made.tensors.end());
    exact.push_back({t->name, Dtype::kF32, t->shape, raw_list(made.weights)});
  }
  Pair out;
  out.exact = {{"config.json", json_text(config)}, {"model.safetensors", safetensors_of(exact)}};
  if (!quantization.empty()) config["quantization_config"] = *json_parse(quantization, "quantization");
  out.folder = {{"config.json", json_text(config)}, {"model.safetensors", safetensors_of(tensors)}};
  return out;
}

std::vector<float> as_floats(const std::vector<double>& w) { return {w.begin(), w.end()}; }

constexpr const char* kGptq = R"({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": false, "desc_act": true})";
Replacement gptq(const std::string& x, int64_t n, int64_t k, uint32_t seed) {
  Int4Source source(n, k, 32, seed, false);
  // As with act-order, in some layers.
  if (seed % 3 == 0) std::shuffle(source.group_of.begin(), source.group_of.end(), std::mt19937(seed));
  return {source.gptq(x, 1, true), as_floats(source.weights())};
}
constexpr const char* kAwq = R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"})";
Replacement awq(const std::string& x, int64_t n, int64_t k, uint32_t seed) {
  const Int4Source source(n, k, 64, seed, false);
  return {source.awq(x), as_floats(source.weights())};
}
constexpr const char* kBitnet = R"({"quant_method": "bitnet"})";
Replacement bitnet(const std::string& x, int64_t n, int64_t k, uint32_t seed) {
  const TernarySource source(n, k, 21.3f + float(seed), seed);
  std::vector<float> w;
  for (const int t : source.t) w.push_back(float(t * double(float(1 / double(source.weight_scale)))));
  return {source.bitnet(x, Dtype::kF32), w};
}

/// v as a normal number of the type: the nearest with so many binary digits.
float stored(float v, Dtype dtype) {
  const int digits = dtype == Dtype::kF16 ? 11 : dtype == Dtype::kBF16 ? 8 : 24;
  int exponent;
  const double digits_of = std::frexp(double(v), &exponent);
  return float(std::ldexp(std::nearbyint(std::ldexp(digits_of, digits)), exponent - digits));
}

/// Levels times a scale of each row, stored in a float type.
template <Levels kLevels, Dtype kStored>
Replacement rows_of_levels(const std::string& x, int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes;
  Replacement out;
  for (int64_t r = 0; r < n; ++r) {
    const float scale = 0.02f + float(random() % 100000) * 1e-6f;
    for (int64_t c = 0; c < k; ++c) {
      const float level = kLevels == Levels::kTernary ? float(int(random() % 3) - 1) : float(int(random() % 4)) - 1.5f;
      const float w = stored(scale * level, kStored);
      bytes += kStored == Dtype::kF16    ? raw(float_to_half(w))
               : kStored == Dtype::kBF16 ? raw(uint16_t(__builtin_bit_cast(uint32_t, w) >> 16))
                                         : raw(w);
      out.weights.push_back(w);
    }
  }
  out.tensors = {{x + ".weight", kStored, {n, k}, bytes}};
  return out;
}

class Import : public testing::Test {
 protected:
  void SetUp() override {
    auto device = make_cpu_device({1, "auto"});
    ASSERT_TRUE(device);
    device_ = std::move(*device);
    std::mt19937 random(11);
    for (int i = 0; i < 1024; ++i) ids_.push_back(int32_t(random() % 384));
  }
  Files quantise(const Opened& source, FolderOptions options) {
    options.context = 64;
    options.n_threads = 1;
    Json config = source.files->config.values();
    config["quantization_config"] = {{"quant_method", "subbyte"}, {"version", 1}};
    auto q = FolderQuantizer::create({source.graph.get(), &source.files->weights, {{"config.json", json_text(config)}}}, *device_, ids_, {},
                                     options);
    EXPECT_TRUE(q) << q.error().message();
    Files out;
    for (;;) {
      auto more = (*q)->step();
      EXPECT_TRUE(more) << more.error().message();
      FolderWrite write;
      while ((*q)->next_write(write)) {
        std::string& file = out[write.file];
        if (file.size() < write.offset + write.bytes.size()) file.resize(write.offset + write.bytes.size());
        std::copy_n(reinterpret_cast<const char*>(write.bytes.data()), write.bytes.size(), file.begin() + int64_t(write.offset));
      }
      if (!more || !*more) break;
    }
    report_ = *json_parse((*q)->report_json(), "report");
    return out;
  }
  EvaluationReport loss(const ModelGraph& graph, const ModelGraph& reference) {
    auto e = Evaluation::create({{&graph}}, &reference, *device_, ids_, {}, {.context = 64, .n_windows = 8});
    EXPECT_TRUE(e) << e.error().message();
    for (;;) {
      auto more = e->step();
      EXPECT_TRUE(more) << more.error().message();
      if (!more || !*more) return e->report(0);
    }
  }
  /// The largest difference of the first logits of two models, in units of their standard deviation, a token at a time.
  double logit_difference(const ModelGraph& a, const ModelGraph& b) {
    std::vector<float> logits[2];
    for (int i = 0; i < 2; ++i) {
      auto stretch = Stretch::compile(i ? b : a, *device_, {3, Pass::Logits::kAll, false, 0, -1});
      EXPECT_TRUE(stretch) << stretch.error().message();
      EXPECT_TRUE(stretch->run({}, std::span(ids_).first(3)));
      const auto y = stretch->output("logits");
      logits[i].assign(y.begin(), y.end());
    }
    double square = 0, most = 0;
    for (size_t i = 0; i < logits[0].size(); ++i) {
      square += double(logits[1][i]) * double(logits[1][i]);
      most = std::max(most, std::fabs(double(logits[0][i]) - double(logits[1][i])));
    }
    return most / std::sqrt(square / double(logits[0].size()));
  }

  std::unique_ptr<Device> device_;
  std::vector<int32_t> ids_;
  Json report_;
};

/// Every linear layer of `made` is that of `exact`, bit by bit, after rounding to the type that the source kept it in.
void expect_same_linears(const Opened& made, const Opened& exact, Dtype type) {
  int n_linears = 0;
  for (const auto& want : exact.files->weights.tensors()) {
    if (!want->name.ends_with("_proj.weight")) continue;
    ++n_linears;
    const WeightTensor* got = made.files->weights.find(want->name);
    ASSERT_TRUE(got && got->planes) << want->name;
    ASSERT_EQ(got->shape, want->shape);
    EXPECT_FALSE(got->planes->hadamard || got->planes->sets[0].column_scale);
    std::vector<float> a(size_t(want->shape[1])), b(a.size());
    for (int64_t r = 0; r < want->shape[0]; ++r) {
      decode_row(got->view(), r, a.data(), want->shape[1]);
      decode_row(want->view(), r, b.data(), want->shape[1]);
      for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(stored(a[i], type), b[i]) << want->name << " " << r << " " << i;
    }
  }
  EXPECT_EQ(n_linears, 14);
}

TEST_F(Import, AForeignFolderRunsAsItsDequantisedWeightsDo) {
  struct Row {
    const char *name, *config;
    Replace replace;
    double kl, few;  // at most
  };
  // Many tokens meet floats that are the same bits, few meet blocks with activations in 16 bits. Planes meet tables of 8-bit sums.
  for (const Row& row :
       {Row{"gptq", kGptq, gptq, 1e-9, 1e-3}, Row{"awq", kAwq, awq, 1e-9, 1e-3}, Row{"bitnet", kBitnet, bitnet, 1e-5, 0.05}}) {
    const Pair pair = llama_with(row.config, row.replace);
    const Opened made = open(pair.folder), exact = open(pair.exact);
    ASSERT_TRUE(made.graph && exact.graph) << row.name;
    const double kl = loss(*made.graph, *exact.graph).kl, few = logit_difference(*made.graph, *exact.graph);
    EXPECT_LT(kl, row.kl) << row.name;
    EXPECT_LT(few, row.few) << row.name;
    RecordProperty(row.name, std::to_string(kl) + " " + std::to_string(few));
  }
}

TEST_F(Import, AForeignFolderCanBeQuantisedFurther) {
  FolderOptions options;
  options.bits = "4";
  for (const auto& [config, replace] : {std::pair{kGptq, Replace(gptq)}, std::pair{kAwq, Replace(awq)}}) {
    const Opened source = open(llama_with(config, replace).folder);
    const Opened made = open(quantise(source, options));
    EXPECT_FALSE(report_.contains("imported"));
    const double kl = loss(*made.graph, *source.graph).kl;
    EXPECT_GT(kl, 0);
    EXPECT_LT(kl, 0.1);
    EXPECT_EQ(made.files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>());
  }
}

TEST_F(Import, LevelsThatFitAreKeptBitByBit) {
  struct Row {
    const char *name, *config, *levels;
    Dtype stored;
    Replace replace;
  };
  const Row rows[] = {
      {"BitNet's own packing", kBitnet, "ternary", Dtype::kF32, bitnet},
      {"ternary rows in float32", "", "ternary", Dtype::kF32, rows_of_levels<Levels::kTernary, Dtype::kF32>},
      {"ternary rows in float16", "", "ternary", Dtype::kF16, rows_of_levels<Levels::kTernary, Dtype::kF16>},
      {"four levels in float32", "", "four levels", Dtype::kF32, rows_of_levels<Levels::kFour, Dtype::kF32>},
      {"four levels in float16", "", "four levels", Dtype::kF16, rows_of_levels<Levels::kFour, Dtype::kF16>},
      {"four levels in bfloat16", "", "four levels", Dtype::kBF16, rows_of_levels<Levels::kFour, Dtype::kBF16>},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const Pair pair = llama_with(row.config, row.replace);
    const Opened source = open(pair.folder), exact = open(pair.exact);
    FolderOptions options;
    options.bits = "4";  // what fits is kept whatever the others become
    options.embedding = "rows8";
    const Files folder = quantise(source, options);
    const Opened made = open(folder);
    expect_same_linears(made, exact, row.stored);
    EXPECT_EQ(report_["imported"].size(), 8);
    EXPECT_EQ(report_["imported"]["model.layers.0.mlp.down_proj.weight"], row.levels);
    EXPECT_EQ(report_["formats"]["model.layers.0.mlp.down_proj.weight"], "plain2");
    EXPECT_EQ(made.files->weights.n_bytes(), report_["weight_bytes"].get<uint64_t>());
    // Two planes, and 16 or 32 bits a row.
    EXPECT_GT(report_["bpw_linears"].get<double>(), 2 + 16.0 / 128);
    EXPECT_LT(report_["bpw_linears"].get<double>(), 2 + 32.0 / 64 + 0.2);
    EXPECT_LT(loss(*made.graph, *source.graph).kl, 1e-3);  // of the embedding and head in 8 bits

    // Inside a budget they cost what they cost; asked for by name, a group becomes something else.
    options.bits = "mixed";
    options.bpw = 20;
    quantise(source, options);
    EXPECT_EQ(report_["imported"].size(), 8);
    options.allocation = R"({"model.layers.0.mlp.down_proj.weight": "coded3", "model.layers.1.mlp.down_proj.weight": "plain2"})";
    quantise(source, options);
    EXPECT_EQ(report_["formats"]["model.layers.0.mlp.down_proj.weight"], "coded3");
    EXPECT_EQ(report_["imported"].size(), 7);
  }
}

}  // namespace
}  // namespace sb
