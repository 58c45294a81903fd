// What a Tokenizer is made of: the six stages of Hugging Face's tokenizers, each a list of steps. tokenizer_json.cc and
// tokenizer_gguf.cc fill it, tokenizer.cc runs it.
#pragma once

#include "input/added_tokens.h"
#include "input/decoder.h"
#include "input/model.h"
#include "input/normalizer.h"
#include "input/pre_tokenizer.h"
#include "input/tokenizer.h"

namespace sb {

struct Tokenizer::Impl {
  AddedTokens added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::unique_ptr<TokenModel> model;
  std::vector<std::vector<int32_t>> post_processors;  // each a template: ids, and kSequence where the text's own ids go
  std::vector<DecoderStep> decoder;
  std::optional<int32_t> bos, eos;
  static constexpr int32_t kSequence = -1;

  size_t limit() const { return std::max(model->vocab().limit(), added.limit()); }
  /// The token as decoders see it.
  std::string_view token(int32_t id) const { return added.has(id) ? added.token(id) : model->vocab().token(id); }
  bool has(int32_t id) const { return added.has(id) || model->vocab().has(id); }

  struct Scratch;
  Status encode_segment(std::string_view text, bool at_start, Scratch& scratch, std::vector<int32_t>& ids) const;
  Status encode_piece(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const;
  /// Checks that the templates' ids exist. Errors: kTokenizerInvalid.
  Status check() const;
};

inline std::unexpected<Error> tokenizer_invalid(const std::string& why) { return err(Code::kTokenizerInvalid, {{"why", why}}); }

/// How SentencePiece writes a space.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

}  // namespace sb
