// The vocabulary inside a GGUF → the text of a tokenizer.json, for a folder that is written from a GGUF.
#pragma once

#include <string>

#include "input/tokenizer.h"

namespace sb {

/// A tokenizer.json (Hugging Face's tokenizers 0.20 and later) that encodes and decodes as Tokenizer::from_gguf(vocab) does. Byte pairs
/// only: "gpt2" (byte level) and "llama" (SentencePiece). What it does not hold is which tokens are BOS and EOS: tokenizer_config.json
/// does. Errors: those of Tokenizer::from_gguf; kTokenizerUnsupported for another model, and for a vocabulary that takes whole words before
/// merges (llama-bpe, tekken) but lacks a byte.
Result<std::string> tokenizer_json_of(const GgufVocab& vocab);

}  // namespace sb
