// The byte-pair vocabulary inside a GGUF with everything that its names and flags stand for spelt out. Two read it: tokenizer_gguf.cc,
// which makes a Tokenizer of it, and tokenizer_export.cc, which writes a tokenizer.json. So what a name means is said once.
#pragma once

#include "input/added_tokens.h"
#include "input/model.h"
#include "input/tokenizer.h"

namespace sb {

struct GgufBpe {
  bool is_byte_level = false;           // "gpt2"; otherwise SentencePiece ("llama")
  bool normalizes_nfc = false;          // byte level
  std::vector<const char*> patterns{};  // byte level: regexes, each cuts what the one before left
  bool prefixes_space = false;          // SentencePiece: the text gets a ▁ in front
  Vocab vocab{};                        // every id has a text of its own
  std::vector<MergePair> merges{};      // by rank; SentencePiece's scores have become one
  BpeOptions options{};
  std::vector<AddedToken> added{};        // by id
  std::vector<int32_t> post_processor{};  // as Tokenizer::Impl has them; empty when nothing is added to a text
};

/// Errors: those of Tokenizer::from_gguf; kTokenizerUnsupported too when the vocabulary is none of byte pairs.
Result<GgufBpe> gguf_bpe(GgufVocab vocab);

}  // namespace sb
