// The head of a GGUF file (versions 2 and 3): metadata, tokenizer, and where each tensor lies.
// Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "io/gguf_vocab_fields.h"
#include "io/tensor_index.h"

namespace sb {

struct GgufHead {
  Json metadata = Json::object();        // flat; without the tokenizer's long arrays
  std::optional<GgufVocabFields> vocab;  // when the file has tokenizer.ggml.*
  std::string chat_template;             // empty when absent
  std::vector<TensorPlace> tensors;      // by rising offset, none overlapping, all inside the file
};

/// Parses the first bytes of a file of `file_size` bytes. Returns 0 and fills `head` when they hold the whole head; otherwise the least
/// number of bytes from the file's start with which to call again (greater than bytes.size()).
/// Errors: kNotAModel, kModelTruncated, kModelCorrupt, kDtypeUnknown.
Result<uint64_t> gguf_parse_head(std::span<const std::byte> bytes, uint64_t file_size, std::string_view file, GgufHead& head);

}  // namespace sb
