#include "io/foreign.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "io/synthetic_foreign.h"

namespace sb {
namespace {

using namespace testing_files;

Files folder_of(const std::string& quantization, const std::vector<ForeignTensor>& tensors) {
  Files files = small_folder();
  files["config.json"] = R"({"model_type": "llama", "quantization_config": )" + quantization + "}";
  files["model.safetensors"] = safetensors_of(tensors);
  return files;
}
constexpr const char* kGptq = R"({"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": false, "desc_act": false})";
constexpr const char* kAwq = R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": true})";
constexpr const char* kBitnet = R"({"quant_method": "bitnet"})";

void expect_rows(const WeightStore& weights, const std::string& name, Dtype dtype, const Int4Source& source) {
  const WeightTensor* tensor = weights.find(name);
  ASSERT_TRUE(tensor) << name;
  EXPECT_EQ(tensor->dtype, dtype) << name << ": " << dtype_name(tensor->dtype);
  ASSERT_EQ(tensor->shape, (Shape{source.n, source.k}));
  const std::vector<double> want = source.weights();
  std::vector<float> row(size_t(source.k));
  for (int64_t r = 0; r < source.n; ++r) {
    decode_row(tensor->view(), r, row.data(), source.k);
    for (int64_t c = 0; c < source.k; ++c) ASSERT_EQ(row[size_t(c)], float(want[size_t(r * source.k + c)])) << name << " " << r << " " << c;
  }
}

struct Int4Case {
  const char* name;
  std::string config;
  Dtype dtype;
  int64_t n, k, group_size;
  bool is_symmetric;
  std::function<std::vector<ForeignTensor>(Int4Source& source)> pack;
};

std::vector<Int4Case> int4_cases() {
  const std::string gptq = kGptq, awq = kAwq;
  auto with = [](std::string text, std::string_view from, std::string_view to) { return text.replace(text.find(from), from.size(), to); };
  auto plain = [](Int4Source& s) { return s.gptq("m.up", 1, false); };
  auto shuffled = [](Int4Source& s) {
    std::shuffle(s.group_of.begin(), s.group_of.end(), std::mt19937(1));
    return s.gptq("m.up", 1, true);
  };
  return {
      {"gptq, all zeros 8", gptq, Dtype::kQ4_0, 72, 128, 64, true, plain},
      {"gptq, zeros from 0 to 15", gptq, Dtype::kQ5_0, 72, 128, 64, false, plain},
      {"gptq, an order that is none", gptq, Dtype::kQ5_0, 8, 256, 64, false, [](Int4Source& s) { return s.gptq("m.up", 1, true); }},
      {"gptq_v2 keeps its zeros", with(gptq, "\"sym\"", R"("checkpoint_format": "gptq_v2", "sym")"), Dtype::kQ5_0, 16, 128, 64, false,
       [](Int4Source& s) { return s.gptq("m.up", 0, true); }},
      {"one group", with(gptq, "64", "-1"), Dtype::kQ5_0, 16, 96, 0, false, plain},
      {"groups of 128, the last one short", with(gptq, "64", "128"), Dtype::kQ5_0, 16, 160, 128, false, plain},
      {"act-order", with(gptq, "\"desc_act\": false", "\"desc_act\": true"), Dtype::kF32, 16, 128, 64, false, shuffled},
      {"rows of no whole blocks", with(gptq, "64", "16"), Dtype::kF32, 16, 48, 16, false, plain},
      {"groups of 16", with(gptq, "64", "16"), Dtype::kF32, 16, 64, 16, false, plain},
      {"scales that are halves, in float32", gptq, Dtype::kQ4_0, 16, 64, 64, true,
       [](Int4Source& s) { return s.gptq("m.up", 1, true, Dtype::kF32); }},
      {"scales that are no halves", gptq, Dtype::kF32, 16, 64, 64, true,
       [](Int4Source& s) {
         s.scales[3] = 0.0123456f;
         return s.gptq("m.up", 1, false, Dtype::kF32);
       }},
      {"scales in bfloat16", gptq, Dtype::kQ5_0, 16, 64, 64, false,
       [](Int4Source& s) {
         for (float& v : s.scales) v = bfloat_to_float(uint16_t(__builtin_bit_cast(uint32_t, v) >> 16));
         return s.gptq("m.up", 1, false, Dtype::kBF16);
       }},
      {"awq", awq, Dtype::kQ5_0, 72, 128, 64, false, [](Int4Source& s) { return s.awq("m.up"); }},
      {"awq by its older names", R"({"quant_method": "awq", "w_bit": 4, "q_group_size": 32})", Dtype::kQ4_0, 8, 64, 32, true,
       [](Int4Source& s) { return s.awq("m.up"); }},
  };
}

TEST(Foreign, Int4IsConvertedExactly) {
  for (const Int4Case& c : int4_cases()) {
    SCOPED_TRACE(c.name);
    Int4Source source(c.n, c.k, c.group_size, 5, c.is_symmetric);
    std::vector<ForeignTensor> tensors = c.pack(source);
    tensors.push_back({"m.norm", Dtype::kF32, {2}, raw_list<float>({1, 2})});
    const Result<ModelFiles> model = load_folder_files(folder_of(c.config, tensors));
    ASSERT_TRUE(model) << model.error().message();
    expect_rows(model->weights, "m.up.weight", c.dtype, source);
    EXPECT_EQ(model->weights.tensors().size(), 2);  // what it was made of is gone
    EXPECT_EQ(model->weights.n_bytes(), *dense_bytes(c.dtype, {c.n, c.k}) + 8);

    // The same folder as shapes: the file's word is enough to know what it will take.
    Host host{.files = folder_of(c.config, tensors)};
    const auto shapes = host.run(Loading::shapes("model", Container::kFolder));
    ASSERT_TRUE(shapes && *shapes) << (*shapes).error().message();
    const WeightTensor* tensor = (*shapes)->weights.find("m.up.weight");
    ASSERT_TRUE(tensor);
    EXPECT_EQ(tensor->shape, (Shape{c.n, c.k}));
    if (std::string_view(c.name).find("scales") == std::string_view::npos && !c.is_symmetric) EXPECT_EQ(tensor->dtype, c.dtype);
  }
}

// transformers' own example of unpack_weights(), and AutoAWQ's order in one word: neither is of our making.
TEST(Foreign, PackingIsTheirs) {
  const Result<ModelFiles> bitnet = load_folder_files(
      folder_of(kBitnet, {{"x.weight", Dtype::kU8, {2, 2}, "\xA1\x18\x90\x0A"}, {"x.weight_scale", Dtype::kF32, {1}, raw(1.0f)}}));
  ASSERT_TRUE(bitnet) << bitnet.error().message();
  const float want[8][2] = {{0, -1}, {-1, 1}, {-1, 1}, {-1, 1}, {1, 0}, {0, -1}, {1, -1}, {1, -1}};
  for (int64_t r = 0; r < 8; ++r) {
    float row[2];
    decode_row(bitnet->weights.find("x.weight")->view(), r, row, 2);
    EXPECT_EQ(row[0], want[r][0]) << r;
    EXPECT_EQ(row[1], want[r][1]) << r;
  }
  const Result<ModelFiles> awq =
      load_folder_files(folder_of(R"({"quant_method": "awq", "bits": 4, "group_size": 1})",
                                  {{"x.qweight", Dtype::kI32, {1, 1}, raw(0x76543210u)},
                                   {"x.qzeros", Dtype::kI32, {1, 1}, raw(0u)},
                                   {"x.scales", Dtype::kF16, {1, 8}, raw_list(std::vector<uint16_t>(8, 0x3C00))}}));
  ASSERT_TRUE(awq) << awq.error().message();
  for (int64_t r = 0; r < 8; ++r) {
    constexpr float kOutputs[] = {0, 4, 1, 5, 2, 6, 3, 7};
    float w;
    decode_row(awq->weights.find("x.weight")->view(), r, &w, 1);
    EXPECT_EQ(w, kOutputs[r]) << r;
  }
}

TEST(Foreign, TernaryIsTwoPlanesWithOneScale) {
  struct Case {
    std::string config;
    float weight_scale;
    Dtype scale_type;
    double scale;
  };
  const float bf16 = bfloat_to_float(0x3D2B);
  for (const Case& c : {Case{kBitnet, 21.7f, Dtype::kF32, double(float(1 / double(21.7f)))},
                        Case{R"({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"})", bf16,
                             Dtype::kBF16, double(bf16)}}) {
    for (const int64_t k : {64, 40}) {
      const TernarySource source(72, k, c.weight_scale, 7);
      const Result<ModelFiles> model = load_folder_files(folder_of(c.config, source.bitnet("m.up", c.scale_type)));
      ASSERT_TRUE(model) << model.error().message();
      const WeightTensor* tensor = model->weights.find("m.up.weight");
      ASSERT_TRUE(tensor && tensor->planes);
      EXPECT_FALSE(model->weights.find("m.up.weight_scale"));
      EXPECT_EQ(tensor->shape, (Shape{72, k}));
      EXPECT_EQ(model->weights.n_bytes(), plane_rows(72) * (plane_columns(k) / 4 + 2));
      for (int64_t r = 0; r < 72; ++r) {
        std::vector<float> row(static_cast<size_t>(k));
        decode_row(tensor->view(), r, row.data(), k);
        for (int64_t i = 0; i < k; ++i) ASSERT_EQ(row[size_t(i)], float(source.t[size_t(r * k + i)] * c.scale)) << r << " " << i;
      }
    }
  }
}

TEST(Foreign, RefusalsSayWhatIsWrong) {
  struct Case {
    const char* name;
    std::string config;
    std::function<void(std::vector<ForeignTensor>&)> change;  // of .qweight, .qzeros, .scales, .g_idx
    Code code;
    const char* says;
  };
  const auto none = [](std::vector<ForeignTensor>&) {};
  const auto words = [](std::initializer_list<int32_t> first, size_t n) {
    std::vector<int32_t> out(first);
    out.resize(n);
    return raw_list(out);
  };
  const Case cases[] = {
      {"other bits", R"({"quant_method": "gptq", "bits": 8, "group_size": 64})", none, Code::kQuantisationUnsupported, "has bits 8, which"},
      {"no bits", R"({"quant_method": "gptq", "group_size": 64})", none, Code::kQuantisationUnsupported, "has no bits"},
      {"a wild group", R"({"quant_method": "gptq", "bits": 4, "group_size": -7})", none, Code::kQuantisationUnsupported, "group_size -7"},
      {"another method", R"({"quant_method": "fp8"})", none, Code::kQuantisationUnsupported, "quant_method fp8"},
      {"another packing", R"({"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "marlin"})", none,
       Code::kQuantisationUnsupported, "checkpoint_format marlin"},
      {"AWQ's gemv", R"({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"})", none, Code::kQuantisationUnsupported,
       "version gemv"},
      {"a ternary model not yet ternary", R"({"quant_method": "bitnet", "quantization_mode": "online"})", none,
       Code::kQuantisationUnsupported, "quantization_mode online"},
      {"a group out of range", kGptq, [&](auto& t) { t[3].bytes = words({0, 1, 2}, 128); }, Code::kModelCorrupt,
       "input 2 is of group 2, but there are 2"},
      {"a negative group", kGptq, [&](auto& t) { t[3].bytes = words({-1}, 128); }, Code::kModelCorrupt, "group -1"},
      {"an order of another length", kGptq,
       [&](auto& t) {
         t[3].shape = {127};
         t[3].bytes.resize(127 * 4);
       },
       Code::kShapeMismatch, "m.up.g_idx of model/model.safetensors has shape [127], but [128]"},
      {"no zeros", kGptq, [](auto& t) { t.erase(t.begin() + 1); }, Code::kTensorMissing, "m.up.qzeros"},
      {"scales of other groups", kGptq,
       [](auto& t) {
         t[2].shape = {1, 16};
         t[2].bytes.resize(32);
       },
       Code::kShapeMismatch, "[1, 16], but [2, 16]"},
      {"zeros of 8 bits", kGptq,
       [](auto& t) {
         t[1].shape = {2, 4};
         t[1].bytes.resize(32);
       },
       Code::kShapeMismatch, "[2, 4], but [2, 2]"},
      {"codes of 8 bits", kGptq,
       [](auto& t) {
         t[0].shape = {32, 16};
         t[0].bytes.resize(32 * 16 * 4);
       },
       Code::kShapeMismatch, "but [4, 16]"},
      {"codes that are floats", kGptq, [](auto& t) { t[0].dtype = Dtype::kF32, t[0].bytes.assign(t[0].bytes.size(), 0); },
       Code::kModelCorrupt, "F32, but I32"},
      {"scales that are whole", kGptq,
       [](auto& t) {
         t[2].dtype = Dtype::kI32;
         t[2].bytes.resize(128);
       },
       Code::kModelCorrupt, "I32, but F16, BF16 or F32"},
      {"a scale that is infinite", kGptq, [](auto& t) { t[2].bytes.replace(4, 2, std::string("\x00\x7C", 2)); }, Code::kWeightsNotFinite,
       "m.up.scales"},
      {"one dimension", kGptq, [](auto& t) { t[0].shape = {256}; }, Code::kShapeMismatch, "a matrix of words"},
      {"the weight is there already", kGptq, [](auto& t) { t.push_back({"m.up.weight", Dtype::kF32, {1}, raw(1.0f)}); },
       Code::kModelCorrupt, "occurs twice"},
      {"a code that is no weight", kBitnet,
       [](auto& t) { t = {{"x.weight", Dtype::kU8, {1, 2}, "\x01\x30"}, {"x.weight_scale", Dtype::kF32, {1}, raw(1.0f)}}; },
       Code::kModelCorrupt, "output 2, input 1 has code 3"},
      {"a scale of 0", kBitnet,
       [](auto& t) { t = {{"x.weight", Dtype::kU8, {1, 2}, "\x01\x01"}, {"x.weight_scale", Dtype::kF32, {1}, raw(0.0f)}}; },
       Code::kModelCorrupt, "no weight can have that scale"},
      {"two scales", kBitnet,
       [](auto& t) { t = {{"x.weight", Dtype::kU8, {1, 2}, "\x01\x01"}, {"x.weight_scale", Dtype::kF32, {2}, raw(1.0f) + raw(1.0f)}}; },
       Code::kShapeMismatch, "one element"},
      {"a scale without weights", kBitnet, [](auto& t) { t = {{"x.weight_scale", Dtype::kF32, {1}, raw(1.0f)}}; }, Code::kTensorMissing,
       "x.weight"},
      {"unpacked weights", kBitnet,
       [](auto& t) { t = {{"x.weight", Dtype::kF32, {1, 1}, raw(1.0f)}, {"x.weight_scale", Dtype::kF32, {1}, raw(1.0f)}}; },
       Code::kModelCorrupt, "F32, but U8"},
  };
  for (const Case& c : cases) {
    std::vector<ForeignTensor> tensors = Int4Source(16, 128, 64, 5, false).gptq("m.up", 1, true);
    c.change(tensors);
    const Result<ModelFiles> model = load_folder_files(folder_of(c.config, tensors));
    ASSERT_FALSE(model) << c.name;
    EXPECT_EQ(model.error().code(), c.code) << c.name << ": " << model.error().message();
    EXPECT_NE(model.error().message().find(c.says), std::string::npos) << c.name << ": " << model.error().message();
  }
}

}  // namespace
}  // namespace sb
