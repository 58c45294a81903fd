// For tests and fuzzers only: small model files made on the spot, and a host that serves them and watches what is asked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/loading.h"
#include "io/safetensors.h"

namespace sb::testing_files {

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
inline std::string raw_text(std::string_view text) { return raw<uint64_t>(text.size()) + std::string(text); }
template <class T>
std::string raw_list(const std::vector<T>& values) {
  std::string out;
  for (T v : values) out += raw(v);
  return out;
}

/// A GGUF file piece by piece; every number can be made wrong.
struct GgufBuilder {
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // innermost first, as in the file
    uint32_t type = 0;
    std::string bytes;
    std::optional<uint64_t> offset;  // otherwise where the bytes really are
  };
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors, n_keys;
  std::vector<std::string> entries;  // metadata, encoded
  std::vector<Tensor> tensors;
  uint64_t alignment = 32;

  GgufBuilder& entry(std::string_view key, uint32_t type, std::string_view value) {
    entries.push_back(raw_text(key) + raw(type) + std::string(value));
    return *this;
  }
  GgufBuilder& text(std::string_view key, std::string_view value) { return entry(key, 8, raw_text(value)); }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return entry(key, 4, raw(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return entry(key, 6, raw(value)); }
  GgufBuilder& flag(std::string_view key, bool value) { return entry(key, 7, raw(uint8_t(value))); }
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string all = raw<uint32_t>(8) + raw<uint64_t>(values.size());
    for (const std::string& v : values) all += raw_text(v);
    return entry(key, 9, all);
  }
  template <class T>
  GgufBuilder& list(std::string_view key, uint32_t type, const std::vector<T>& values) {
    return entry(key, 9, raw(type) + raw<uint64_t>(values.size()) + raw_list(values));
  }
  GgufBuilder& tensor(Tensor t) {
    tensors.push_back(std::move(t));
    return *this;
  }
  GgufBuilder& floats(std::string_view name, std::vector<uint64_t> dims, const std::vector<float>& values) {
    return tensor({std::string(name), std::move(dims), 0, raw_list(values), std::nullopt});
  }

  std::string build() const {
    std::string out =
        magic + raw(version) + raw<uint64_t>(n_tensors.value_or(tensors.size())) + raw<uint64_t>(n_keys.value_or(entries.size()));
    for (const std::string& e : entries) out += e;
    uint64_t offset = 0;
    auto aligned = [&](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
    for (const Tensor& t : tensors) {
      out += raw_text(t.name) + raw<uint32_t>(uint32_t(t.dims.size()));
      out += raw_list(t.dims) + raw(t.type) + raw(t.offset.value_or(offset));
      offset += aligned(t.bytes.size());
    }
    for (const Tensor& t : tensors) {
      out.resize(size_t(aligned(out.size())));
      out += t.bytes;
    }
    return out;
  }
};

/// A complete small GGUF: every metadata type, a tokenizer, four tensors of three types.
inline GgufBuilder small_gguf() {
  GgufBuilder g;
  g.text("general.architecture", "llama").u32("llama.block_count", 2).u32("llama.embedding_length", 8).f32("llama.rope.freq_base", 5e5f);
  g.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  g.entry("t.u8", 0, raw<uint8_t>(200)).entry("t.i8", 1, raw<int8_t>(-3)).entry("t.u16", 2, raw<uint16_t>(60000));
  g.entry("t.i16", 3, raw<int16_t>(-300)).entry("t.i32", 5, raw<int32_t>(-70000)).entry("t.u64", 10, raw<uint64_t>(UINT64_MAX));
  g.entry("t.i64", 11, raw<int64_t>(-5'000'000'000)).entry("t.f64", 12, raw(0.25)).list<uint16_t>("t.list", 2, {1, 2, 3});
  g.entry("t.nested", 9,
          raw<uint32_t>(9) + raw<uint64_t>(2) + raw<uint32_t>(0) + raw<uint64_t>(1) + "\x07" + raw<uint32_t>(8) + raw<uint64_t>(0));
  g.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm").texts("tokenizer.ggml.tokens", {"a", "b", "ab"});
  g.list<float>("tokenizer.ggml.scores", 6, {0, -1, -2}).list<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 3});
  g.texts("tokenizer.ggml.merges", {"a b"}).u32("tokenizer.ggml.bos_token_id", 2).u32("tokenizer.ggml.unknown_token_id", UINT32_MAX);
  g.flag("tokenizer.ggml.add_bos_token", true).text("tokenizer.chat_template", "{{ messages }}");
  std::string q8 = raw<uint16_t>(0x3C00);  // scale 1
  for (int i = 0; i < 32; ++i) q8 += char(i - 16);
  g.floats("norm", {8}, {1, 2, 3, 4, 5, 6, 7, 8}).tensor({"halves", {2, 3}, 1, raw_list<uint16_t>({0, 0x3C00, 0x4000, 0xBC00, 1, 2}), {}});
  g.tensor({"blocks", {32, 2}, 8, q8 + q8, {}}).floats("matrix", {3, 2}, {1, 2, 3, 4, 5, 6});
  return g;
}

inline std::string text_of(const std::vector<std::byte>& bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

/// A safetensors file with a header as written.
inline std::string safetensors_with(std::string_view header, std::string_view data) { return raw_text(header) + std::string(data); }

/// A complete small safetensors file: float32 "norm" [4], float16 "half" [2, 3], int64 "ids" [2].
inline std::string small_safetensors() {
  return safetensors_with(
      R"({"__metadata__":{"format":"pt"},"norm":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
      R"("half":{"dtype":"F16","shape":[2,3],"data_offsets":[16,28]},"ids":{"dtype":"I64","shape":[2],"data_offsets":[28,44]}})",
      raw_list<float>({1, 2, 3, 4}) + raw_list<uint16_t>({0, 0x3C00, 0x4000, 0xBC00, 1, 2}) + raw_list<int64_t>({7, -9}));
}

using Files = std::map<std::string, std::string>;

inline Files small_folder() {
  return {{"config.json", R"({"model_type": "llama", "hidden_size": 4, "sliding_window": null})"},
          {"tokenizer.json", "{}"},
          {"tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": "{{ a }}"})"},
          {"generation_config.json", R"({"eos_token_id": [1, 2]})"},
          {"model.safetensors", small_safetensors()}};
}

/// Serves files from memory and checks the promises of Loading: bounded requests, rising offsets, no byte twice.
struct Host {
  Files files = {};
  std::optional<uint64_t> claimed_size = {};  // of every file, whatever is there
  uint64_t most_bytes = UINT64_MAX;           // answered in all, then the file "ends"
  uint64_t most_answers = UINT64_MAX;         // then the load is abandoned
  uint64_t largest_request = kMaxRequestBytes;
  uint64_t n_requests = 0, n_bytes = 0;
  std::string broken_promise = {};
  std::map<std::string, uint64_t> read_until = {};
  std::function<void()> on_pause = {};  // what waits for a device
  std::function<void()> on_error = {};  // while the load is still there

  /// nullopt when abandoned.
  std::optional<Result<ModelFiles>> run(Loading loading) {
    for (uint64_t i = 0; i < most_answers; ++i) {
      Result<ReadRequest> wanted = loading.next();
      if (!wanted) {
        if (loading.next().has_value() || loading.finish().has_value()) broken_promise = "an error that does not last";
        if (on_error) on_error();
        return err(wanted.error());
      }
      auto file = files.find(wanted->file);
      switch (wanted->kind) {
        case ReadRequest::Kind::kNothing:
          return loading.finish();
        case ReadRequest::Kind::kPause:
          on_pause ? on_pause() : void(broken_promise = "a pause that nothing ends");
          break;
        case ReadRequest::Kind::kSize:
          loading.size_is(file == files.end() ? std::nullopt : std::optional<uint64_t>(claimed_size.value_or(file->second.size())));
          break;
        case ReadRequest::Kind::kBytes:
          loading.bytes_are(answer(*wanted, file == files.end() ? std::string() : file->second));
          break;
      }
    }
    return std::nullopt;
  }

 private:
  uint64_t answer(const ReadRequest& wanted, const std::string& file) {
    uint64_t& until = read_until[wanted.file];
    if (wanted.dst.empty()) broken_promise = "an empty request";
    if (wanted.dst.size() > largest_request) broken_promise = "a request that is too large";
    if (wanted.offset < until) broken_promise = "a byte asked for twice";
    until = wanted.offset + wanted.dst.size();
    ++n_requests;
    const uint64_t here = wanted.offset < file.size() ? file.size() - wanted.offset : 0;
    const uint64_t n = std::min({here, uint64_t(wanted.dst.size()), most_bytes - n_bytes});
    if (n) std::memcpy(wanted.dst.data(), file.data() + wanted.offset, size_t(n));
    n_bytes += n;
    return n;
  }
};

inline Result<ModelFiles> load_gguf_text(const std::string& file, LoadTuning tuning = {}) {
  Host host{.files = {{"", file}}};
  return *host.run(Loading::gguf("model.gguf", tuning));
}
inline Result<ModelFiles> load_folder_files(Files files, LoadTuning tuning = {}) {
  Host host{.files = std::move(files)};
  return *host.run(Loading::folder("model", tuning));
}

}  // namespace sb::testing_files
