// What turns one piece of text (a word, mostly) into ids: byte-pair merges, unigram, WordPiece, or whole words.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "input/vocab.h"

namespace sb {

/// Working space of one encode() call, so that a Tokenizer itself stays constant and threads can share it.
struct ModelScratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // places; -1: none
    uint32_t n_bytes;        // 0: merged away
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;  // rank << 32 | place
  struct Best {
    double score;
    uint32_t start;
    int32_t id;
  };
  std::vector<Best> best;
  std::string text;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of `piece`. Errors: kTokenizerInvalid (the unknown token is needed, and there is none).
  virtual Status encode(std::string_view piece, ModelScratch& scratch, std::vector<int32_t>& ids) const = 0;
  /// A place where the piece can be cut without changing any id, at or after `from`; its size when there is none.
  virtual size_t cut(std::string_view piece, size_t from) const { return piece.size(); }
  const Vocab& vocab() const { return vocab_; }

 protected:
  explicit TokenModel(Vocab vocab) : vocab_(std::move(vocab)) {}
  Vocab vocab_;
};

/// GPT-2's alphabet: each byte as a printable character (UTF-8, at most two bytes).
std::string_view byte_letter(uint8_t byte);
/// The byte that the character stands for, or -1.
int byte_of_letter(char32_t c);

struct BpeOptions {
  std::string unknown;  // empty: characters without a token are dropped
  std::string continuing_prefix, word_suffix;
  bool has_unknown = false, fuses_unknown = false, byte_fallback = false, ignores_merges = false;
  bool keeps_gaps = false;  // a dropped character still parts its neighbours (llama.cpp); else they may merge (Hugging Face)
  bool maps_bytes = false;  // the pieces are raw bytes, to be spelt with byte_letter()
};
struct MergePair {
  int32_t left, right, joined;
};
/// Merges in the order of their rank.
std::unique_ptr<TokenModel> make_bpe(Vocab vocab, std::vector<MergePair> merges, BpeOptions options);
/// The id that the pair merges into, "##"-like prefix of the right part left out; -1 when any of the three is no token.
int32_t joined_id(const Vocab& vocab, std::string_view left, std::string_view right, size_t prefix_size, std::string& buffer);

/// Scores by id. `unknown` -1: none.
std::unique_ptr<TokenModel> make_unigram(Vocab vocab, std::vector<double> scores, int32_t unknown, bool byte_fallback);
std::unique_ptr<TokenModel> make_wordpiece(Vocab vocab, std::string unknown, const std::string& prefix, size_t most_characters);
std::unique_ptr<TokenModel> make_wordlevel(Vocab vocab, std::string unknown);

}  // namespace sb
