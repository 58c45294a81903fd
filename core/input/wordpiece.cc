// WordPiece (BERT): the longest token first, again and again; and whole words (WordLevel).
#include "input/model.h"
#include "input/unicode.h"

namespace sb {

namespace {

std::unexpected<Error> no_unknown(const std::string& unknown) {
  return err(Code::kTokenizerInvalid, {{"why", "its unknown token " + unknown + " is not in the vocabulary"}});
}

class WordPiece final : public TokenModel {
 public:
  WordPiece(Vocab vocab, std::string unknown, const std::string& prefix, size_t most_characters)
      : TokenModel(std::move(vocab)), unknown_(std::move(unknown)), most_characters_(most_characters) {
    std::vector<Trie::Entry> entries;
    entries.reserve(vocab_.count());
    for (size_t id = 0; id < vocab_.limit(); ++id) {
      if (vocab_.has(int32_t(id))) entries.push_back({vocab_.token(int32_t(id)), int32_t(id)});
    }
    trie_.build(std::move(entries));
    inside_ = Trie::kRoot;
    for (char b : prefix) {
      if (inside_ != Trie::kNone) inside_ = trie_.child(inside_, uint8_t(b));
    }
    unknown_id_ = vocab_.find(unknown_);
  }

  Status encode(std::string_view piece, ModelScratch&, std::vector<int32_t>& ids) const override {
    size_t n_characters = 0, first = ids.size();
    for (char b : piece) n_characters += !utf8_continues(b);
    bool known = n_characters <= most_characters_;
    for (size_t at = 0; known && at < piece.size();) {
      uint32_t node = at == 0 ? Trie::kRoot : inside_;
      int32_t longest = -1;
      size_t end = at;
      for (size_t i = at; i < piece.size() && node != Trie::kNone; ++i) {
        node = trie_.child(node, uint8_t(piece[i]));
        if (node != Trie::kNone && trie_.value(node) >= 0) longest = trie_.value(node), end = i + 1;
      }
      if (longest >= 0) ids.push_back(longest);
      known = longest >= 0;
      at = end;
    }
    if (!known) {
      if (unknown_id_ < 0) return no_unknown(unknown_);
      ids.resize(first);
      ids.push_back(unknown_id_);
    }
    return {};
  }

 private:
  std::string unknown_;
  size_t most_characters_;
  int32_t unknown_id_ = -1;
  Trie trie_;
  uint32_t inside_ = Trie::kRoot;  // where "##" ends
};

class WordLevel final : public TokenModel {
 public:
  WordLevel(Vocab vocab, std::string unknown) : TokenModel(std::move(vocab)), unknown_(std::move(unknown)) {}
  Status encode(std::string_view piece, ModelScratch&, std::vector<int32_t>& ids) const override {
    int32_t id = vocab_.find(piece);
    if (id < 0) id = vocab_.find(unknown_);
    if (id < 0) return no_unknown(unknown_);
    ids.push_back(id);
    return {};
  }

 private:
  std::string unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> make_wordpiece(Vocab vocab, std::string unknown, const std::string& prefix, size_t most_characters) {
  return std::make_unique<WordPiece>(std::move(vocab), std::move(unknown), prefix, most_characters);
}
std::unique_ptr<TokenModel> make_wordlevel(Vocab vocab, std::string unknown) {
  return std::make_unique<WordLevel>(std::move(vocab), std::move(unknown));
}

}  // namespace sb
