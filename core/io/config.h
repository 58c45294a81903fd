// A model's configuration, read the same from config.json and from GGUF metadata: callers ask by Hugging Face's key.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "io/weights.h"

namespace sb {

/// For a folder `values` is config.json. For a GGUF it is the metadata as one flat object ("llama.block_count": 30, "general.name": …;
/// arrays of strings and numbers too, except the tokenizer's long ones), and a table in config.cc says which GGUF key holds what
/// Hugging Face calls "num_hidden_layers".
class Config {
 public:
  Config(Container container, std::string file, Json values);

  Container container() const { return container_; }
  const std::string& file() const { return file_; }
  /// "llama", "qwen2", "gemma3_text"…: model_type, or GGUF's general.architecture.
  const std::string& architecture() const { return architecture_; }
  const Json& values() const { return values_; }
  /// Whether the weights' numbers are as GGUF's converter leaves them, whatever the tensors are called: q and k of "llama" turned to pairs,
  /// Gemma's norms with their 1 added, GPT-2's matrices [N, K], Llama 3's rope divisors as rope_freqs.weight. So in a GGUF, and in a folder
  /// written from one, which says so: config.json's quantization_config.gguf_conventions.
  bool gguf_conventions() const;
  /// The settings under Hugging Face's keys, in the family's own spelling: what a folder's config.json would say, less its model_type. A
  /// GGUF's other settings come without the architecture ("rope.scaling.type"), which is how find() asks for them. A folder's are values().
  Json hugging_face_values() const;

  const Json* find(std::string_view key) const;  // nullptr when absent or null
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// A dimension: 1 … 2^31-1. Errors: kConfigInvalid {file, key, value, why}.
  Result<int64_t> dimension(std::string_view key) const;
  Result<int64_t> dimension_or(std::string_view key, int64_t otherwise) const;
  /// Absent is `otherwise`; present with a wrong type or not finite is kConfigInvalid.
  Result<double> number_or(std::string_view key, double otherwise) const;
  Result<bool> flag_or(std::string_view key, bool otherwise) const;
  Result<std::string> text_or(std::string_view key, std::string otherwise) const;
  /// Integers, from one number or a list (eos_token_id has both forms). Empty when absent.
  std::vector<int64_t> integers(std::string_view key) const;
  std::unexpected<Error> invalid(std::string_view key, std::string_view why) const;

 private:
  Container container_;
  std::string file_;
  Json values_;
  std::string architecture_;
};

}  // namespace sb
