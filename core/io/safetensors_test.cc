#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "io/synthetic_files.h"

namespace sb {
namespace {

using namespace testing_files;

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

TEST(Safetensors, Reads) {
  const std::string file = small_safetensors();
  const auto store = safetensors_read(bytes_of(file), "a.safetensors");
  ASSERT_TRUE(store) << store.error().message();
  ASSERT_EQ(store->tensors().size(), 3u);
  EXPECT_EQ(store->find("norm")->view().row<float>(0)[3], 4.0f);
  EXPECT_EQ(store->find("half")->dtype, Dtype::kF16);
  EXPECT_EQ(store->find("half")->shape, (Shape{2, 3}));
  EXPECT_EQ(store->find("ids")->dtype, Dtype::kI32);  // stored with 64 bits
  EXPECT_EQ(store->find("ids")->view().row<int32_t>(0)[1], -9);
  EXPECT_EQ(store->find("norm")->file, "a.safetensors");
}

TEST(Safetensors, WhatIsWrittenComesBack) {
  const std::vector<float> floats = {1, -2, 3.5f, 0, 7, 8};
  const std::vector<int32_t> integers = {5, -6};
  const SafetensorsEntry entries[] = {
      {"out.logits", Dtype::kF32, {1, 2, 3}, std::as_bytes(std::span(floats))},
      {"out.\"ids\"", Dtype::kI32, {2}, std::as_bytes(std::span(integers))},
      {"none", Dtype::kF32, {0, 4}, {}},
      {"one", Dtype::kF32, {}, std::as_bytes(std::span(floats).first(1))},
  };
  const std::vector<std::byte> file = write_safetensors(entries);
  const auto store = safetensors_read(file, "dump");
  ASSERT_TRUE(store) << store.error().message();
  ASSERT_EQ(store->tensors().size(), 4u);
  for (const SafetensorsEntry& entry : entries) {
    const WeightTensor* tensor = store->find(entry.name);
    ASSERT_TRUE(tensor) << entry.name;
    EXPECT_EQ(tensor->dtype, entry.dtype);
    EXPECT_EQ(tensor->shape, entry.shape);
    EXPECT_TRUE(std::ranges::equal(tensor->block.bytes(), entry.bytes));
  }
  EXPECT_TRUE(safetensors_read(write_safetensors({}), "empty"));
}

TEST(Safetensors, Refuses) {
  struct Row {
    const char* name;
    std::string file;
    Code code;
    const char* says;
  };
  const std::string data(64, 'x');
  auto one = [&](std::string_view fields) { return safetensors_with("{\"t\":{" + std::string(fields) + "}}", data); };
  const Row rows[] = {
      {"empty", "", Code::kNotAModel, "empty"},
      {"web page", "<!DOCTYPE html>", Code::kNotAModel, "web page"},
      {"pickle", std::string("\x80\x02zzzzzzzzzzz"), Code::kNotAModel, "pickle"},
      {"header length", raw<uint64_t>(UINT64_MAX) + "{}", Code::kNotAModel, "header"},
      {"header of nothing", raw<uint64_t>(0), Code::kNotAModel, "header"},
      {"header cut", raw<uint64_t>(1000) + "{\"a\":", Code::kModelTruncated, "ends at byte 13"},
      {"no JSON", safetensors_with("{\"a\": ", ""), Code::kJsonInvalid, "a.safetensors"},
      {"no object", safetensors_with("[1]", ""), Code::kModelCorrupt, "no JSON object"},
      {"not UTF-8", safetensors_with("{\"\xff\":1}", ""), Code::kJsonInvalid, "a.safetensors"},
      {"deep", safetensors_with(std::string(100'000, '['), ""), Code::kJsonInvalid, "a.safetensors"},
      {"entry no object", safetensors_with(R"({"t":3})", data), Code::kModelCorrupt, "no dtype"},
      {"no dtype", one(R"("shape":[1],"data_offsets":[0,4])"), Code::kModelCorrupt, "no dtype"},
      {"unknown dtype", one(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])"), Code::kDtypeUnknown,
       "Tensor t of a.safetensors has type F8_E4M3"},
      {"no shape", one(R"("dtype":"F32","data_offsets":[0,4])"), Code::kModelCorrupt, "no shape"},
      {"shape of text", one(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), Code::kModelCorrupt, "whole numbers"},
      {"shape negative", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), Code::kModelCorrupt, "whole numbers"},
      {"shape fraction", one(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), Code::kModelCorrupt, "whole numbers"},
      {"shape of 5", one(R"("dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4])"), Code::kModelCorrupt, "5 dimensions"},
      {"shape overflows", one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), Code::kModelCorrupt, "too large"},
      {"integers overflow", one(R"("dtype":"I64","shape":[2305843009213693951],"data_offsets":[0,0])"), Code::kModelCorrupt, "too large"},
      {"no offsets", one(R"("dtype":"F32","shape":[1])"), Code::kModelCorrupt, "no data_offsets"},
      {"three offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,2,4])"), Code::kModelCorrupt, "no data_offsets"},
      {"offset fraction", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4.0])"), Code::kModelCorrupt, "not whole numbers"},
      {"offset overflows", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615])"), Code::kModelCorrupt,
       "beyond any file"},
      {"offsets backwards", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), Code::kModelCorrupt, "backwards"},
      {"size differs", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), Code::kModelCorrupt, "shape [2] needs 8 bytes"},
      {"beyond the file", one(R"("dtype":"F32","shape":[17],"data_offsets":[0,68])"), Code::kModelTruncated, "ends at byte"},
      {"overlap",
       safetensors_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                        data),
       Code::kModelCorrupt, "overlap"},
      {"name twice",
       safetensors_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                        data),
       Code::kModelCorrupt, "tensor a: the name occurs twice"},
      {"integer too wide", safetensors_with(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}})", raw<int64_t>(int64_t(1) << 31)),
       Code::kModelCorrupt, "2147483648 does not fit 32 bits"},
  };
  for (const Row& row : rows) {
    const auto store = safetensors_read(bytes_of(row.file), "a.safetensors");
    ASSERT_FALSE(store) << row.name;
    EXPECT_EQ(store.error().code(), row.code) << row.name << ": " << store.error().message();
    EXPECT_NE(store.error().message().find(row.says), std::string::npos) << row.name << ": " << store.error().message();

    Files files = small_folder();
    files["model.safetensors"] = row.file;
    const auto model = load_folder_files(files, {.first_bytes = 9});
    ASSERT_FALSE(model) << row.name;
    EXPECT_EQ(model.error().code(), row.code) << row.name << ": " << model.error().message();
    EXPECT_NE(model.error().message().find("model/model.safetensors"), std::string::npos) << row.name << ": " << model.error().message();
  }
}

TEST(Folder, ReadsEverything) {
  const auto model = load_folder_files(small_folder());
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model->container, Container::kFolder);
  EXPECT_EQ(model->config.architecture(), "llama");
  EXPECT_EQ(model->config.dimension("hidden_size").value_or(0), 4);
  EXPECT_EQ(model->tokenizer_json, "{}");
  EXPECT_FALSE(model->vocab);
  EXPECT_EQ(model->chat_template, "{{ a }}");
  EXPECT_EQ(model->tokenizer_config["bos_token"], "<s>");
  EXPECT_EQ(json_text(model->generation_config["eos_token_id"]), "[1,2]");
  EXPECT_EQ(model->weights.tensors().size(), 3u);
}

TEST(Folder, ChatTemplates) {
  struct Row {
    const char* config;
    const char* jinja;  // nullptr: no such file
    const char* want;
  };
  const Row rows[] = {
      {R"({"chat_template": "one"})", nullptr, "one"},
      {R"({"chat_template": "one"})", "two", "two"},
      {R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})", nullptr, "d"},
      {R"({"chat_template": [{"name": "tool_use", "template": "t"}, 3]})", nullptr, ""},
      {R"({"chat_template": null})", nullptr, ""},
      {R"({"chat_template": 3})", nullptr, ""},
      {R"({})", nullptr, ""},
  };
  for (const Row& row : rows) {
    Files files = small_folder();
    files["tokenizer_config.json"] = row.config;
    if (row.jinja) files["chat_template.jinja"] = row.jinja;
    const auto model = load_folder_files(files);
    ASSERT_TRUE(model);
    EXPECT_EQ(model->chat_template, row.want) << row.config;
  }
}

TEST(Folder, WhatMayBeMissingAndWhatMayNot) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    Files files = small_folder();
    files.erase(name);
    EXPECT_TRUE(load_folder_files(files)) << name;
    files[name] = "[";
    const bool is_parsed_here = std::string_view(name) != "tokenizer.json";
    EXPECT_EQ(load_folder_files(files).has_value(), !is_parsed_here) << name;
  }
  for (const char* name : {"config.json", "model.safetensors"}) {
    Files files = small_folder();
    files.erase(name);
    const auto model = load_folder_files(files);
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().message(), std::string("model/") + name + " was not found");
  }
  Files files = small_folder();
  files["config.json"] = "[]";
  EXPECT_EQ(load_folder_files(files).error().code(), Code::kModelCorrupt);
}

// It may be read beside the load, which is told late or never that the load is over.
TEST(Folder, TheTokenizersTextStaysWhereItIs) {
  for (const bool is_cut : {false, true}) {
    Files files = small_folder();
    const std::string text(100'000, 'x');
    files["tokenizer.json"] = text;
    if (is_cut) files["model.safetensors"].resize(files["model.safetensors"].size() - 1);
    Loading loading = Loading::folder("m");
    std::string_view seen;
    loading.see_tokenizer([&](const std::string& json) { seen = json; });
    bool has_failed = false;
    Host host{.files = files, .on_error = [&] { has_failed = seen == text; }};
    const auto model = *host.run(std::move(loading));
    EXPECT_EQ(has_failed, is_cut);
    EXPECT_EQ(model.has_value(), !is_cut);
    if (model) EXPECT_EQ(seen.data(), model->tokenizer_json.data());
  }
}

Files sharded_folder(std::string_view index) {
  Files files = small_folder();
  files.erase("model.safetensors");
  const std::string data = raw_list<float>({1, 2});
  files["model-1.safetensors"] = safetensors_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", data);
  files["parts/model-2.safetensors"] = safetensors_with(R"({"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}})", data);
  files["model-a-again.safetensors"] = files["model-1.safetensors"];
  files["model.safetensors.index.json"] = index;
  return files;
}

TEST(Folder, Shards) {
  const auto model = load_folder_files(sharded_folder(R"({"weight_map": {"b": "parts/model-2.safetensors", "a": "model-1.safetensors"}})"));
  ASSERT_TRUE(model) << model.error().message();
  ASSERT_EQ(model->weights.tensors().size(), 2u);
  EXPECT_EQ(model->weights.find("b")->file, "model/parts/model-2.safetensors");

  struct Row {
    const char* index;
    Code code;
    const char* says;
  };
  const Row rows[] = {
      {R"({"weight_map": {"a": "../model-1.safetensors"}})", Code::kModelCorrupt, "not the name of a file in this folder"},
      {R"({"weight_map": {"a": "parts/../../x"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "//elsewhere/x"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "https://elsewhere/x"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "..\\x"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "%2e%2e/x"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": "a\u0000b"}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": ""}})", Code::kModelCorrupt, "not the name"},
      {R"({"weight_map": {"a": 3}})", Code::kModelCorrupt, "weight_map.a"},
      {R"({"weight_map": {}})", Code::kModelCorrupt, "weight_map"},
      {R"({})", Code::kModelCorrupt, "weight_map"},
      {R"({"weight_map": {"a": "model-9.safetensors"}})", Code::kFileMissing, "model/model-9.safetensors"},
      {R"({"weight_map": {"a": "model-1.safetensors", "c": "model-1.safetensors"}})", Code::kTensorMissing, "no tensor c"},
      {R"({"weight_map": {"a": "model-1.safetensors", "b": "model-a-again.safetensors"}})", Code::kModelCorrupt,
       "tensor a: the name occurs twice"},
  };
  for (const Row& row : rows) {
    const auto refused = load_folder_files(sharded_folder(row.index));
    ASSERT_FALSE(refused) << row.index;
    EXPECT_EQ(refused.error().code(), row.code) << refused.error().message();
    EXPECT_NE(refused.error().message().find(row.says), std::string::npos) << refused.error().message();
  }
}

TEST(Folder, TruncatedAtEveryByte) {
  const Files whole = small_folder();
  const MemoryReport before = memory_report();
  const std::string& weights = whole.at("model.safetensors");
  for (size_t n = 0; n < weights.size(); ++n) {
    Files files = whole;
    files["model.safetensors"] = weights.substr(0, n);
    const auto model = load_folder_files(files, {.first_bytes = 1 + n % 50});
    ASSERT_FALSE(model) << n;
    EXPECT_EQ(model.error().code(), n == 0 ? Code::kNotAModel : Code::kModelTruncated) << n << ": " << model.error().message();
  }
  size_t n_all = 0;
  for (const auto& [name, text] : whole) n_all += text.size();
  for (size_t n = 0; n < n_all; ++n) {  // the connection is cut after n bytes of all
    Host host{.files = whole, .most_bytes = n};
    const auto model = host.run(Loading::folder("model", {.first_bytes = 10, .most_request_bytes = 33}));
    ASSERT_TRUE(model && !*model) << n;
    EXPECT_EQ(model->error().code(), Code::kModelTruncated) << n;
  }
  for (const auto& [name, text] : whole) {  // JSON cut anywhere
    if (!name.ends_with("config.json")) continue;
    for (size_t n = 0; n < text.size(); ++n) {
      Files files = whole;
      files[name] = text.substr(0, n);
      ASSERT_FALSE(load_folder_files(files)) << name << " " << n;
    }
  }
  for (uint64_t n = 0; n < 60; ++n) {
    Host host{.files = whole, .most_answers = n};
    host.run(Loading::folder("model", {.first_bytes = 10, .most_request_bytes = 33, .most_shared_bytes = 20}));
  }
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kWeights)].current, before.by_tag[size_t(Tag::kWeights)].current);
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kStaging)].current, before.by_tag[size_t(Tag::kStaging)].current);
}

TEST(Folder, AnyRequestSizes) {
  for (uint64_t first : {1u, 8u, 9u, 100u, 100'000u}) {
    for (uint64_t most : {1u, 5u, 17u, 100'000u}) {
      for (uint64_t shared : {0u, 20u, 100'000u}) {
        Host host{.files = small_folder(), .largest_request = most};
        const auto model =
            host.run(Loading::folder("model", {.first_bytes = first, .most_request_bytes = most, .most_shared_bytes = shared}));
        ASSERT_TRUE(model && *model);
        EXPECT_EQ(host.broken_promise, "") << first << " " << most << " " << shared;
        EXPECT_EQ((*model)->weights.find("norm")->view().row<float>(0)[3], 4.0f);
        EXPECT_EQ((*model)->weights.find("ids")->view().row<int32_t>(0)[1], -9);
      }
    }
  }
}

TEST(Folder, AFixtureOfEachFamily) {
  for (const char* family : {"llama", "llama3_rope", "mistral", "qwen2", "qwen3", "gemma3", "gpt2"}) {
    const std::string folder = std::string(SB_TESTS "/golden/") + family + "/";
    Files files;
    for (const char* name : {"config.json", "model.safetensors", "golden.safetensors"}) {
      FILE* file = std::fopen((folder + name).c_str(), "rb");
      ASSERT_TRUE(file) << folder << name;
      char part[4096];
      for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) files[name].append(part, n);
      std::fclose(file);
    }
    const auto model = load_folder_files(files);
    ASSERT_TRUE(model) << model.error().message();
    const int64_t n_vocab = model->config.dimension("vocab_size").value_or(0);
    const int64_t width = model->config.dimension("hidden_size").value_or(0);
    const bool is_gpt2 = std::string_view(family) == "gpt2";
    const WeightTensor* embedding = model->weights.find(is_gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
    ASSERT_TRUE(embedding) << family;
    EXPECT_EQ(embedding->shape, (Shape{n_vocab, width})) << family;

    const auto golden = safetensors_read(bytes_of(files["golden.safetensors"]), "golden.safetensors");
    ASSERT_TRUE(golden) << family << ": " << golden.error().message();
    ASSERT_TRUE(golden->find("in.input_ids")) << family;
    EXPECT_EQ(golden->find("in.input_ids")->dtype, Dtype::kI32);
    EXPECT_EQ(golden->find("out.logits")->shape[-1], n_vocab) << family;
  }
}

TEST(Progress, RisesToTheTotal) {
  for (const bool is_folder : {false, true}) {
    Files files = small_folder();
    files[""] = small_gguf().build();
    Loading loading =
        is_folder ? Loading::folder("m", {.most_request_bytes = 50}) : Loading::gguf("m", {.first_bytes = 9, .most_request_bytes = 50});
    uint64_t done = 0;
    for (;;) {
      const auto wanted = loading.next();
      ASSERT_TRUE(wanted);
      EXPECT_GE(loading.progress().done_bytes, done);
      done = loading.progress().done_bytes;
      if (wanted->kind == ReadRequest::Kind::kNothing) break;
      const auto file = files.find(wanted->file);
      if (wanted->kind == ReadRequest::Kind::kSize) {
        loading.size_is(file == files.end() ? std::nullopt : std::optional<uint64_t>(file->second.size()));
      } else {
        std::memcpy(wanted->dst.data(), file->second.data() + wanted->offset, wanted->dst.size());
        loading.bytes_are(wanted->dst.size());
      }
    }
    EXPECT_EQ(loading.progress().done_bytes, loading.progress().total_bytes);
    EXPECT_STREQ(loading.progress().phase, "weights");
    EXPECT_TRUE(loading.finish());
    EXPECT_EQ(loading.finish().error().code(), Code::kInternal);  // once only
  }
}

// A host that asks again gets the same request; answers to questions that were not put change nothing.
TEST(Protocol, AskingTwiceIsHarmless) {
  Loading loading = Loading::gguf("m");
  EXPECT_FALSE(loading.finish());
  loading.bytes_are(5);
  EXPECT_EQ(loading.next()->kind, ReadRequest::Kind::kSize);
  EXPECT_EQ(loading.next()->kind, ReadRequest::Kind::kSize);
  loading.bytes_are(5);
  loading.size_is(100);
  loading.size_is(7);
  const auto wanted = loading.next();
  ASSERT_EQ(wanted->kind, ReadRequest::Kind::kBytes);
  EXPECT_EQ(wanted->dst.size(), 100u);
  EXPECT_EQ(loading.next()->dst.data(), wanted->dst.data());
  Loading moved = std::move(loading);
  EXPECT_EQ(moved.next()->dst.data(), wanted->dst.data());
}

}  // namespace
}  // namespace sb
