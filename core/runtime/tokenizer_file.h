// A tokenizer from a file of its own: tokenizer.json, or the head of a GGUF.
#pragma once

#include <span>

#include "input/tokenizer.h"
#include "io/gguf_vocab_fields.h"

namespace sb {

/// Errors: those of Tokenizer and of reading a GGUF head; kModelTruncated when `bytes` end inside it.
Result<Tokenizer> tokenizer_from_file(std::span<const std::byte> bytes);
/// What io read, in the words of input.
GgufVocab vocab_of(GgufVocabFields fields);

}  // namespace sb
