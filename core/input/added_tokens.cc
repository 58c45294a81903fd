#include "input/added_tokens.h"

#include <algorithm>

#include "input/unicode.h"

namespace sb {

namespace {
constexpr size_t kLongest = 1024;  // bytes; keeps the search linear in the text

bool is_word_character(char32_t c) { return is_word(c) || c == 0x200C || c == 0x200D; }
}  // namespace

Status AddedTokens::build(std::vector<AddedToken> tokens, const Vocab& vocab, const std::vector<NormalizerStep>& normalizer) {
  auto wrong = [](const std::string& why) { return err(Code::kTokenizerInvalid, {{"why", why}}); };
  size_t next = vocab.count();
  std::vector<bool> special;
  for (AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    if (token.content.size() > kLongest) return wrong("an added token is longer than " + std::to_string(kLongest) + " bytes");
    int32_t id = ids_.find(token.content);
    if (id < 0) id = vocab.find(token.content);
    if (id < 0) id = int32_t(next++);
    if (!ids_.add(token.content, id)) return wrong("too many added tokens");
    if (size_t(id) >= by_id_.size()) by_id_.resize(size_t(id) + 1, -1);
    std::string spelt = token.content;
    if (token.normalized) SB_OK(apply_normalizer(normalizer, token.content, spelt));
    if (by_id_[size_t(id)] >= 0) {  // named twice: the later one counts
      size_t at = size_t(by_id_[size_t(id)]);
      special[at] = special[at] || token.special;
      spelt_[at] = std::move(spelt);
      tokens_[at] = std::move(token);
      continue;
    }
    by_id_[size_t(id)] = int32_t(tokens_.size());
    special.push_back(token.special);
    spelt_.push_back(std::move(spelt));
    token_ids_.push_back(id);
    tokens_.push_back(std::move(token));
  }
  int32_t clash;
  ids_.finish(clash);

  std::vector<Trie::Entry> entries[2];
  for (size_t i = 0; i < tokens_.size(); ++i) {
    // Special is a matter of the spelling that decoders see, as in tokenizers 0.23.
    int32_t same = ids_.find(spelt_[i]);
    skipped_.push_back(same >= 0 && by_id_[size_t(same)] >= 0 && special[size_t(by_id_[size_t(same)])]);
    std::string_view text = tokens_[i].normalized ? spelt_[i] : tokens_[i].content;
    if (!text.empty() && text.size() <= 4 * kLongest) entries[tokens_[i].normalized].push_back({text, int32_t(i)});
  }
  for (int k = 0; k < 2; ++k) {
    if (!entries[k].empty()) tries_[k].build(std::move(entries[k]));
  }
  return {};
}

void AddedTokens::find(std::string_view text, bool normalized, std::vector<Part>& parts) const {
  parts.clear();
  const Trie& trie = tries_[normalized];
  size_t from = 0;
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    // The longest token at the leftmost place where there is one.
    uint32_t node = trie.child(Trie::kRoot, uint8_t(text[at]));
    int32_t index = -1;
    size_t stop = at;
    for (size_t i = at; node != Trie::kNone;) {
      if (trie.value(node) >= 0) index = trie.value(node), stop = i + 1;
      if (++i == text.size()) break;
      node = trie.child(node, uint8_t(text[i]));
    }
    if (index < 0) {
      ++at;
      continue;
    }
    size_t start = at;
    at = stop;
    const AddedToken& token = tokens_[size_t(index)];
    if (token.single_word) {
      if (start > 0 && is_word_character(utf8_before(text, start))) continue;
      size_t after = stop;
      if (stop < text.size() && is_word_character(utf8_next(text, after))) continue;
    }
    if (token.left_strip) {
      while (start > from && is_space(utf8_before(text, start))) {
        do --start;
        while (utf8_continues(text[start]));
      }
    }
    if (token.right_strip) {
      for (size_t after = stop; stop < text.size() && is_space(utf8_next(text, after)); stop = after) {}
    }
    if (from < start) parts.push_back({from, start, -1});
    parts.push_back({start, stop, token_ids_[size_t(index)]});
    from = stop;
  }
  if (from < text.size()) parts.push_back({from, text.size(), -1});
}

std::string_view AddedTokens::token(int32_t id) const {
  return has(id) ? std::string_view(spelt_[size_t(by_id_[size_t(id)])]) : std::string_view();
}
std::string_view AddedTokens::content(int32_t id) const {
  return has(id) ? std::string_view(tokens_[size_t(by_id_[size_t(id)])].content) : std::string_view();
}
bool AddedTokens::is_special(int32_t id) const { return has(id) && skipped_[size_t(by_id_[size_t(id)])]; }

}  // namespace sb
