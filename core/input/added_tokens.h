// Tokens added on top of a model's vocabulary: special ones (<|im_end|>) and others, found in the text before anything else happens to it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "input/normalizer.h"
#include "input/vocab.h"

namespace sb {

struct AddedToken {
  std::string content{};
  bool single_word = false, left_strip = false, right_strip = false, normalized = false, special = false;
};

class AddedTokens {
 public:
  /// Gives each token its id: the vocabulary's, or the next free one. Errors: kTokenizerInvalid.
  Status build(std::vector<AddedToken> tokens, const Vocab& vocab, const std::vector<NormalizerStep>& normalizer);

  struct Part {
    size_t start, end;
    int32_t id;  // -1: text
  };
  /// Cuts `text` at the tokens that are matched before normalization, or at those matched after it.
  void find(std::string_view text, bool normalized, std::vector<Part>& parts) const;
  bool any(bool normalized) const { return !tries_[normalized].empty(); }

  /// What decoders see of the token: its normalized form, if it has one. Empty when the id is no added token.
  std::string_view token(int32_t id) const;
  std::string_view content(int32_t id) const;
  int32_t find_id(std::string_view content) const { return ids_.find(content); }
  bool is_special(int32_t id) const;
  bool has(int32_t id) const { return id >= 0 && size_t(id) < by_id_.size() && by_id_[size_t(id)] >= 0; }
  size_t limit() const { return by_id_.size(); }
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  std::vector<std::string> spelt_;  // by token: its normalized form
  std::vector<bool> skipped_;       // by token: decoding without special tokens leaves it out
  std::vector<int32_t> token_ids_;  // by token
  std::vector<int32_t> by_id_;      // token, or -1
  Vocab ids_;                       // by content
  Trie tries_[2];                   // values are tokens
};

}  // namespace sb
