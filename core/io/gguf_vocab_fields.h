// The `tokenizer.ggml.*` keys of a GGUF file as plain data; runtime hands them to input/tokenizer (io and input do not know each other).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sb {

struct GgufVocabFields {
  std::string model, pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  std::optional<int32_t> bos, eos, unk, sep, pad, cls, mask, eot;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

}  // namespace sb
