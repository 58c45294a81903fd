// Text ↔ ids, exactly as Hugging Face's tokenizers do it: from tokenizer.json, or from the vocabulary inside a GGUF file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sb {

/// The tokenizer keys of a GGUF file (`tokenizer.ggml.*`), as plain data.
struct GgufVocab {
  std::string model{};  // gpt2 (byte-level BPE), llama (SentencePiece BPE), t5 (unigram), bert (WordPiece)
  std::string pre{};    // pre-tokenizer: smollm, llama-bpe, qwen2, gpt-2 …; empty for SentencePiece
  std::vector<std::string> tokens{};
  std::vector<float> scores{};        // one a token, or empty
  std::vector<int32_t> types{};       // one a token, or empty: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  std::vector<std::string> merges{};  // "left right", or empty
  std::optional<int32_t> bos{}, eos{}, unk{}, sep{}, pad{}, cls{}, mask{};
  std::optional<bool> add_bos{}, add_eos{}, add_space_prefix{}, remove_extra_whitespaces{};
  std::string precompiled_charsmap{};  // t5: SentencePiece's character map; may be empty
};

class Tokenizer {
 public:
  /// From the text of a tokenizer.json. Errors: kJsonInvalid, kTokenizerInvalid, kTokenizerUnsupported (names the component).
  static Result<Tokenizer> from_json(std::string_view text);
  /// Errors: kTokenizerInvalid, kTokenizerUnsupported (names the model or pre-tokenizer).
  static Result<Tokenizer> from_gguf(GgufVocab vocab);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Text (UTF-8) to ids; `add_special` adds what the post-processor adds (BOS, [CLS] …). Special tokens written in the text are
  /// recognised. Errors: kUtf8Invalid.
  Result<std::vector<int32_t>> encode(std::string_view text, bool add_special) const;
  /// Ids to text; ids outside the vocabulary are an error. Errors: kTokenOutside.
  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special) const;

  size_t vocab_size() const;
  /// The token as the vocabulary spells it ("Ġthe", "▁the", "<|im_end|>"); empty when outside.
  std::string_view token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  bool is_special(int32_t id) const;
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

  struct Impl;  // private: tokenizer.cc

 private:
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  friend class TokenStream;
};

/// Ids in, whole UTF-8 characters out, one id at a time; the texts joined equal decode() of all ids (special tokens skipped).
/// The tokenizer must outlive it.
class TokenStream {
 public:
  explicit TokenStream(const Tokenizer& tokenizer);
  TokenStream(TokenStream&&) noexcept;
  TokenStream& operator=(TokenStream&&) noexcept;
  ~TokenStream();
  /// The text that this id completes; empty while a character is incomplete. Errors: kTokenOutside.
  Result<std::string> push(int32_t id);
  /// What is left at the end (an incomplete character becomes U+FFFD, as decode() has it). Then a new text may begin.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sb
