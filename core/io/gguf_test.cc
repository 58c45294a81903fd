#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "formats/decode.h"
#include "io/synthetic_files.h"

namespace sb {
namespace {

using namespace testing_files;

struct Refusal {
  const char* name;
  std::string file;
  Code code;
  const char* says;  // part of the message
};

void expect_refused(const std::vector<Refusal>& rows) {
  const uint64_t before = memory_report().by_tag[size_t(Tag::kWeights)].current;
  for (const Refusal& row : rows) {
    const Result<ModelFiles> model = load_gguf_text(row.file);
    ASSERT_FALSE(model) << row.name;
    EXPECT_EQ(model.error().code(), row.code) << row.name << ": " << model.error().message();
    EXPECT_NE(model.error().message().find(row.says), std::string::npos) << row.name << ": " << model.error().message();
    EXPECT_NE(model.error().message().find("model.gguf"), std::string::npos) << row.name;
    EXPECT_EQ(model.error().message().find('?'), std::string::npos) << row.name << ": a field is missing: " << model.error().message();
  }
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kWeights)].current, before);
}

TEST(Gguf, ReadsEverything) {
  const Result<ModelFiles> model = load_gguf_text(small_gguf().build());
  ASSERT_TRUE(model) << model.error().message();
  const Json& m = model->config.values();
  EXPECT_EQ(model->config.architecture(), "llama");
  EXPECT_EQ(m["t.u8"], 200);
  EXPECT_EQ(m["t.i8"], -3);
  EXPECT_EQ(m["t.u16"], 60000);
  EXPECT_EQ(m["t.i16"], -300);
  EXPECT_EQ(m["t.i32"], -70000);
  EXPECT_EQ(m["t.u64"], UINT64_MAX);
  EXPECT_EQ(m["t.i64"], -5'000'000'000);
  EXPECT_EQ(m["t.f64"], 0.25);
  EXPECT_EQ(json_text(m["t.list"]), "[1,2,3]");
  EXPECT_EQ(json_text(m["t.nested"]), "[[7],[]]");
  EXPECT_EQ(model->config.dimension("num_hidden_layers").value_or(0), 2);
  EXPECT_EQ(model->config.dimension("vocab_size").value_or(0), 3);
  EXPECT_EQ(model->config.number_or("rope_theta", 0).value_or(0), 5e5);
  EXPECT_EQ(model->chat_template, "{{ messages }}");

  ASSERT_TRUE(model->vocab);
  EXPECT_EQ(model->vocab->model, "gpt2");
  EXPECT_EQ(model->vocab->pre, "smollm");
  EXPECT_EQ(model->vocab->tokens, (std::vector<std::string>{"a", "b", "ab"}));
  EXPECT_EQ(model->vocab->scores, (std::vector<float>{0, -1, -2}));
  EXPECT_EQ(model->vocab->types, (std::vector<int32_t>{1, 1, 3}));
  EXPECT_EQ(model->vocab->merges, (std::vector<std::string>{"a b"}));
  EXPECT_EQ(model->vocab->bos, 2);
  EXPECT_FALSE(model->vocab->unk);  // 2^32-1 stands for none
  EXPECT_EQ(model->vocab->add_bos, true);
  EXPECT_FALSE(model->vocab->add_eos);

  ASSERT_EQ(model->weights.tensors().size(), 4u);
  const WeightTensor* matrix = model->weights.find("matrix");
  ASSERT_TRUE(matrix);
  EXPECT_EQ(matrix->shape, (Shape{2, 3}));
  EXPECT_EQ(matrix->view().row<float>(1)[2], 6.0f);
  const WeightTensor* blocks = model->weights.find("blocks");
  ASSERT_TRUE(blocks);
  EXPECT_EQ(blocks->shape, (Shape{2, 32}));
  float row[32];
  decode_row(blocks->dtype, blocks->view().row_bytes_at(1), row, 32);
  EXPECT_EQ(row[0], -16.0f);
  EXPECT_EQ(row[31], 15.0f);
}

TEST(Gguf, RefusesWhatIsNoModel) {
  GgufBuilder big_endian = small_gguf(), old = small_gguf(), future = small_gguf(), part = small_gguf();
  big_endian.version = 3u << 24;
  old.version = 1;
  future.version = 9;
  part.entry("split.count", 2, raw<uint16_t>(3));
  expect_refused({
      {"empty", "", Code::kNotAModel, "empty"},
      {"web page", "<!DOCTYPE html><html>Not found</html>", Code::kNotAModel, "web page"},
      {"git lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0", Code::kNotAModel, "Git LFS"},
      {"zip", std::string("PK\x03\x04zzzzzzzzzzzzzz"), Code::kNotAModel, "ZIP"},
      {"noise", "abcdefghijklmnopqrstuvw", Code::kNotAModel, "GGUF"},
      {"one byte", "x", Code::kNotAModel, "GGUF"},
      {"big endian", big_endian.build(), Code::kNotAModel, "big-endian"},
      {"version 1", old.build(), Code::kNotAModel, "version 1"},
      {"version 9", future.build(), Code::kNotAModel, "version 9"},
      {"part", part.build(), Code::kNotAModel, "3 parts"},
  });
}

TEST(Gguf, RefusesDamage) {
  auto with = [](auto change) {
    GgufBuilder g = small_gguf();
    change(g);
    return g.build();
  };
  const std::string long_text = raw_text("k") + raw<uint32_t>(8) + raw<uint64_t>(UINT64_MAX - 3);
  const std::string long_list = raw_text("k") + raw<uint32_t>(9) + raw<uint32_t>(12) + raw<uint64_t>(UINT64_MAX / 4);
  std::string deep = raw_text("k") + raw<uint32_t>(9);
  for (int i = 0; i < 1000; ++i) deep += raw<uint32_t>(9) + raw<uint64_t>(1);
  expect_refused({
      {"tensor count", with([](auto& g) { g.n_tensors = UINT64_MAX; }), Code::kModelCorrupt, "tensor count"},
      {"key count", with([](auto& g) { g.n_keys = uint64_t(1) << 62; }), Code::kModelCorrupt, "key count"},
      {"more keys than there are", with([](auto& g) { g.n_keys = g.entries.size() + 1; }), Code::kModelCorrupt, "is damaged at"},
      {"key twice", with([](auto& g) { g.u32("llama.block_count", 3); }), Code::kModelCorrupt,
       "key llama.block_count: the key occurs twice"},
      {"text length", with([&](auto& g) { g.entries.push_back(long_text); }), Code::kModelCorrupt, "text length"},
      {"list length", with([&](auto& g) { g.entries.push_back(long_list); }), Code::kModelCorrupt, "array length"},
      {"nesting", with([&](auto& g) { g.entries.push_back(deep); }), Code::kModelCorrupt, "nested too deeply"},
      {"value type", with([](auto& g) { g.entry("k", 13, "aaaaaaaa"); }), Code::kModelCorrupt, "unknown type 13"},
      {"element type", with([](auto& g) { g.template list<int>("k", 99, {1}); }), Code::kModelCorrupt, "unknown type 99"},
      {"truth value", with([](auto& g) { g.entry("k", 7, "\x02"); }), Code::kModelCorrupt, "neither 0 nor 1"},
      {"tokens of numbers", GgufBuilder().list<int>("tokenizer.ggml.tokens", 5, {1}).build(), Code::kModelCorrupt, "must be texts"},
      {"scores of texts", GgufBuilder().texts("tokenizer.ggml.scores", {"a"}).build(), Code::kModelCorrupt, "must be numbers"},
      {"too few scores", GgufBuilder().texts("tokenizer.ggml.tokens", {"a", "b"}).list<float>("tokenizer.ggml.scores", 6, {1}).build(),
       Code::kModelCorrupt, "tokens"},
      {"alignment 0", with([](auto& g) { g.u32("general.alignment", 0); }), Code::kModelCorrupt, "power of two"},
      {"alignment 48", with([](auto& g) { g.u32("general.alignment", 48); }), Code::kModelCorrupt, "power of two"},
      {"alignment text", with([](auto& g) { g.text("general.alignment", "32"); }), Code::kModelCorrupt, "power of two"},
      {"name twice", with([](auto& g) { g.floats("norm", {1}, {1}); }), Code::kModelCorrupt, "tensor norm: the name occurs twice"},
      {"five dimensions", with([](auto& g) { g.floats("x", {1, 1, 1, 1, 1}, {1}); }), Code::kModelCorrupt, "5 dimensions"},
      {"a billion dimensions", with([](auto& g) { g.tensors[0].dims.resize(1 << 16); }), Code::kModelCorrupt, "dimensions"},
      {"dimension 0", with([](auto& g) { g.floats("x", {0}, {}); }), Code::kModelCorrupt, "dimension of 0"},
      {"negative dimension", with([](auto& g) { g.floats("x", {UINT64_MAX}, {}); }), Code::kModelCorrupt, "dimension of"},
      {"size overflows", with([](auto& g) { g.floats("x", {uint64_t(1) << 32, uint64_t(1) << 32}, {}); }), Code::kModelCorrupt, "tensor x"},
      {"half a block", with([](auto& g) { g.tensor({"x", {33}, 8, "", {}}); }), Code::kModelCorrupt, "whole blocks"},
      {"offset overflows", with([](auto& g) { g.tensors[1].offset = UINT64_MAX - 31; }), Code::kModelCorrupt, "beyond any file"},
      {"offset not aligned", with([](auto& g) { g.tensors[1].offset = 33; }), Code::kModelCorrupt, "multiple of the alignment"},
      {"overlap", with([](auto& g) { g.tensors[3].offset = 64; }), Code::kModelCorrupt, "overlap"},
      {"beyond the file", with([](auto& g) { g.tensors[3].offset = 1 << 20; }), Code::kModelTruncated, "ends at byte"},
  });
}

TEST(Gguf, NamesTheTensorTypeItDoesNotKnow) {
  for (auto [number, name] :
       {std::pair{16u, "IQ2_XXS"}, {35u, "TQ2_0"}, {20u, "IQ4_NL"}, {39u, "MXFP4"}, {27u, "I64"}, {1234u, "number 1234"}}) {
    GgufBuilder g = small_gguf();
    g.tensor({"blk.0.attn_q.weight", {256}, number, "", {}});
    const Result<ModelFiles> model = load_gguf_text(g.build());
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().code(), Code::kDtypeUnknown);
    EXPECT_EQ(model.error().message(),
              std::string("Tensor blk.0.attn_q.weight of model.gguf has type ") + name + ", which subbyte does not read");
    EXPECT_NE(model.error().hint().find("Q4_K"), std::string::npos);
  }
}

TEST(Gguf, RefusesWeightsThatAreNotFinite) {
  struct Row {
    const char* name;
    uint32_t type;
    std::vector<uint64_t> dims;
    std::string bytes;
    const char* index;
  };
  std::string q4_1 =
      raw_list<uint16_t>({0x3C00, 0x3C00}) + std::string(16, 'a') + raw_list<uint16_t>({0x3C00, 0x7C00}) + std::string(16, 'a');
  std::vector<float> far(10'000, 1.0f);
  far[9'999] = NAN;
  const Row rows[] = {
      {"NaN in a norm", 0, {3}, raw_list<float>({1, NAN, 3}), "1"},
      {"infinity in a norm", 0, {3}, raw_list<float>({1, 2, -INFINITY}), "2"},
      {"NaN in a half matrix", 1, {2, 2}, raw_list<uint16_t>({1, 2, 3, 0xFE00}), "3"},
      {"infinity in bfloat", 30, {2}, raw_list<uint16_t>({0x7F80, 0}), "0"},
      {"infinite minimum of a block", 3, {64}, q4_1, "32"},
      {"NaN at the end", 0, {10'000}, raw_list(far), "9999"},
  };
  for (const Row& row : rows) {
    GgufBuilder g = small_gguf();
    g.tensor({"bad", row.dims, row.type, row.bytes, {}});
    const Result<ModelFiles> model = load_gguf_text(g.build());
    ASSERT_FALSE(model) << row.name;
    EXPECT_EQ(model.error().message(),
              std::string("Tensor bad of model.gguf holds NaN or infinite values (first at element ") + row.index + ")");
  }
  GgufBuilder integers = small_gguf();
  integers.tensor({"ids", {1}, 26, raw<uint32_t>(0x7FC00000), {}});
  EXPECT_TRUE(load_gguf_text(integers.build()));
}

TEST(Gguf, TruncatedAtEveryByte) {
  const std::string whole = small_gguf().build();
  const MemoryReport before = memory_report();
  for (size_t n = 0; n < whole.size(); ++n) {
    const Result<ModelFiles> model = load_gguf_text(whole.substr(0, n));
    ASSERT_FALSE(model) << n;
    EXPECT_EQ(model.error().code(), n == 0 ? Code::kNotAModel : Code::kModelTruncated) << n << ": " << model.error().message();
  }
  for (size_t n = 0; n < whole.size(); ++n) {  // the size is right, but the bytes stop coming
    Host host{.files = {{"", whole.substr(0, n)}}, .claimed_size = whole.size()};
    const auto model = host.run(Loading::gguf("model.gguf", {.first_bytes = 16, .most_shared_bytes = n % 2 ? 0u : 100u}));
    ASSERT_TRUE(model && !*model) << n;
    EXPECT_EQ(model->error().code(), Code::kModelTruncated) << n;
  }
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kWeights)].current, before.by_tag[size_t(Tag::kWeights)].current);
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kStaging)].current, before.by_tag[size_t(Tag::kStaging)].current);
}

TEST(Gguf, ACutDownloadIsSaidBeforeTheWeightsAreRead) {
  GgufBuilder g = small_gguf();
  g.floats("large", {100'000}, std::vector<float>(100'000, 1.0f));
  const std::string whole = g.build();
  Host host{.files = {{"", whole.substr(0, whole.size() - 1)}}};
  const auto model = host.run(Loading::gguf("model.gguf"));
  ASSERT_TRUE(model && !*model);
  EXPECT_EQ(model->error().message(),
            "model.gguf ends at byte " + std::to_string(whole.size() - 1) + ", but its index needs " + std::to_string(whole.size()));
  EXPECT_EQ(host.n_requests, 1u);
}

// Whatever the sizes of the requests, the same bytes arrive, none is asked for twice and offsets rise.
TEST(Gguf, AnyRequestSizes) {
  GgufBuilder g = small_gguf();
  std::vector<float> values(1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = float(i);
  for (int i = 0; i < 5; ++i)
    g.floats("more." + std::to_string(i), {uint64_t(10 + i * 200)}, {values.begin(), values.begin() + 10 + i * 200});
  const std::string file = g.build();
  for (uint64_t first : {1u, 7u, 24u, 333u, 1000u, 3000u, 100'000u}) {
    for (uint64_t most : {1u, 5u, 17u, 4096u, 100'000u}) {
      for (uint64_t shared : {0u, 64u, 1000u, 100'000u}) {
        Host host{.files = {{"", file}}, .largest_request = most};
        const auto model =
            host.run(Loading::gguf("model.gguf", {.first_bytes = first, .most_request_bytes = most, .most_shared_bytes = shared}));
        ASSERT_TRUE(model && *model) << (*model).error().message();
        EXPECT_EQ(host.broken_promise, "") << first << " " << most << " " << shared;
        EXPECT_LE(host.n_bytes, file.size());
        ASSERT_EQ((*model)->weights.tensors().size(), 9u);
        for (const auto& tensor : (*model)->weights.tensors()) {
          if (!tensor->name.starts_with("more.")) continue;
          ASSERT_EQ(std::memcmp(tensor->block.data(), values.data(), size_t(tensor->block.size())), 0) << tensor->name;
        }
      }
    }
  }
}

TEST(Gguf, AbandonedAnywhere) {
  const std::string file = small_gguf().build();
  const MemoryReport before = memory_report();
  for (uint64_t n = 0; n < 40; ++n) {
    Host host{.files = {{"", file}}, .most_answers = n};
    host.run(Loading::gguf("model.gguf", {.first_bytes = 100, .most_request_bytes = 150, .most_shared_bytes = 0}));
  }
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kWeights)].current, before.by_tag[size_t(Tag::kWeights)].current);
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kStaging)].current, before.by_tag[size_t(Tag::kStaging)].current);
}

TEST(Gguf, AMissingFile) {
  Host host;
  const auto model = host.run(Loading::gguf("model.gguf"));
  ASSERT_TRUE(model && !*model);
  EXPECT_EQ(model->error().message(), "model.gguf was not found");
}

// Files that PyPI's gguf package has written (tools/make_io_corpus.py).
TEST(Gguf, ReadsWhatTheGgufPackageWrites) {
  auto load = [](const char* name) {
    std::string text;
    FILE* file = std::fopen((std::string(SB_TESTS "/fuzz/corpus/gguf/") + name).c_str(), "rb");
    EXPECT_TRUE(file) << name;
    char part[4096];
    for (size_t n; file && (n = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    if (file) std::fclose(file);
    return load_gguf_text(text);
  };
  const auto tokenizer = load("tokenizer.gguf"), blocks = load("blocks.gguf"), aligned = load("aligned.gguf");
  ASSERT_TRUE(tokenizer && blocks && aligned);
  ASSERT_TRUE(tokenizer->vocab);
  EXPECT_EQ(tokenizer->vocab->tokens[4], "\u0120ab");
  EXPECT_EQ(tokenizer->vocab->eos, 1);
  EXPECT_NE(tokenizer->chat_template.find("m.content"), std::string::npos);
  EXPECT_EQ(tokenizer->config.dimension("num_attention_heads").value_or(0), 2);

  EXPECT_FALSE(blocks->vocab);
  EXPECT_EQ(blocks->weights.tensors().size(), 8u);
  EXPECT_EQ(blocks->weights.find("q4_k.weight")->shape, (Shape{1, 256}));
  EXPECT_EQ(blocks->weights.find("q8_0.weight")->shape, (Shape{2, 64}));
  EXPECT_EQ(aligned->config.values()["general.alignment"], 128);
  EXPECT_EQ(aligned->weights.find("output_norm.weight")->view().row<float>(0)[63], 1.0f);
}

// Every single byte changed in every simple way: an error or a model, never a crash (ASan and UBSan watch).
TEST(Gguf, AnyByteChanged) {
  const std::string whole = small_gguf().build();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (int change : {1, 0x80, 0xFF}) {
      std::string file = whole;
      file[i] = char(file[i] ^ change);
      const Result<ModelFiles> model = load_gguf_text(file, {.first_bytes = 200});
      if (!model) EXPECT_FALSE(model.error().message().empty());
    }
  }
}

}  // namespace
}  // namespace sb
