#include "input/tokenizer.h"

#include <algorithm>
#include <cstring>

#include "input/tokenizer_impl.h"
#include "input/unicode.h"

namespace sb {

namespace {

// Words come again and again: their ids are kept for the length of one encode(). Direct-mapped; a newcomer takes the place.
class WordCache {
 public:
  static constexpr size_t kLongest = 64;  // bytes
  struct Slot {
    uint64_t hash = 0;
    uint32_t text = 0, ids = 0;
    uint16_t n_bytes = 0, n_ids = 0;
  };
  /// True when the word was known: its ids have been appended.
  bool find(std::string_view word, uint64_t hash, std::vector<int32_t>& ids) const {
    if (slots_.empty()) return false;
    const Slot& s = slots_[hash & (kSlots - 1)];
    if (s.hash != hash || s.n_bytes != word.size() || memcmp(text_.data() + s.text, word.data(), word.size()) != 0) return false;
    for (size_t i = 0; i < s.n_ids; ++i) ids.push_back(ids_[s.ids + i]);
    return true;
  }
  void add(std::string_view word, uint64_t hash, const int32_t* ids, size_t n) {
    if (++n_added_ <= 32) return;  // short texts do not pay for the table
    if (slots_.empty() || text_.size() > kMostText) {
      slots_.assign(kSlots, Slot());
      text_.clear();
      ids_.clear();
    }
    slots_[hash & (kSlots - 1)] = {hash, uint32_t(text_.size()), uint32_t(ids_.size()), uint16_t(word.size()), uint16_t(n)};
    text_ += word;
    ids_.insert(ids_.end(), ids, ids + n);
  }

 private:
  static constexpr size_t kSlots = 1 << 13, kMostText = 1 << 20;
  std::vector<Slot> slots_;
  std::string text_;
  std::vector<int32_t> ids_;
  size_t n_added_ = 0;
};

}  // namespace

struct Tokenizer::Impl::Scratch {
  ModelScratch model;
  WordCache words;
  Pieces pieces;
  std::string normalized;
  std::vector<AddedTokens::Part> parts, inner_parts;
};

Status Tokenizer::Impl::encode_piece(std::string_view piece, Scratch& s, std::vector<int32_t>& ids) const {
  for (size_t at = 0; at < piece.size();) {
    size_t end = at + model->cut(piece.substr(at), 1);
    std::string_view word = piece.substr(at, end - at);
    at = end;
    if (word.size() > WordCache::kLongest) {
      SB_OK(model->encode(word, s.model, ids));
      continue;
    }
    uint64_t hash = hash_text(word);
    if (s.words.find(word, hash, ids)) continue;
    size_t first = ids.size();
    SB_OK(model->encode(word, s.model, ids));
    s.words.add(word, hash, ids.data() + first, ids.size() - first);
  }
  return {};
}

Status Tokenizer::Impl::encode_segment(std::string_view text, bool at_start, Scratch& s, std::vector<int32_t>& ids) const {
  if (!normalizer.empty()) {
    for (const NormalizerStep& step : normalizer) {  // "first" means the input's first character, and Strip may have taken that
      size_t at = 0;
      if (step.kind == NormalizerStep::kStrip && step.left && !text.empty() && is_space(utf8_next(text, at))) at_start = false;
    }
    SB_OK(apply_normalizer(normalizer, text, s.normalized));
    text = s.normalized;
  }
  auto encode_text = [&](std::string_view part, bool first) -> Status {
    SB_OK(pre_tokenize(pre_tokenizer, part, first, s.pieces));
    for (auto [start, end] : s.pieces.ranges) SB_OK(encode_piece(s.pieces.text.substr(start, end - start), s, ids));
    return {};
  };
  if (!added.any(true)) return encode_text(text, at_start);
  added.find(text, true, s.inner_parts);
  for (const auto& part : s.inner_parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      SB_OK(encode_text(text.substr(part.start, part.end - part.start), at_start && part.start == 0));
    }
  }
  return {};
}

Status Tokenizer::Impl::check() const {
  for (const auto& sequence : post_processors) {
    for (int32_t id : sequence) {
      if (id != kSequence && !has(id))
        return err(Code::kTokenizerInvalid,
                   {{"why", "its post-processor adds the token " + std::to_string(id) + ", which does not exist"}});
    }
  }
  return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, bool add_special) const {
  size_t bad = utf8_invalid_at(text);
  if (bad != std::string_view::npos) return err(Code::kUtf8Invalid, {{"what", "The text"}, {"byte", bad}});
  Impl::Scratch scratch;
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  scratch.pieces.ranges.reserve(text.size() / 4 + 8);
  impl_->added.find(text, false, scratch.parts);
  for (const auto& part : scratch.parts) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      SB_OK(impl_->encode_segment(text.substr(part.start, part.end - part.start), part.start == 0, scratch, ids));
    }
  }
  if (!add_special) return ids;
  for (const auto& sequence : impl_->post_processors) {
    std::vector<int32_t> whole;
    whole.reserve(ids.size() + sequence.size());
    for (int32_t id : sequence) {
      if (id == Impl::kSequence) {
        whole.insert(whole.end(), ids.begin(), ids.end());
      } else {
        whole.push_back(id);
      }
    }
    ids.swap(whole);
  }
  return ids;
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  DecoderRun run(impl_->decoder);
  for (int32_t id : ids) {
    if (id < 0 || size_t(id) >= vocab_size()) return err(Code::kTokenOutside, {{"id", id}, {"size", vocab_size()}});
    if (impl_->has(id) && !(skip_special && impl_->added.is_special(id))) run.push(impl_->token(id));
  }
  run.finish();
  return run.take();
}

size_t Tokenizer::vocab_size() const { return impl_->limit(); }
std::string_view Tokenizer::token(int32_t id) const {
  return impl_->added.has(id) ? impl_->added.content(id) : impl_->model->vocab().token(id);
}
std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  int32_t id = impl_->added.find_id(token);
  if (id < 0) id = impl_->model->vocab().find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}
bool Tokenizer::is_special(int32_t id) const { return impl_->added.is_special(id); }
std::optional<int32_t> Tokenizer::bos() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos() const { return impl_->eos; }

struct TokenStream::State {
  const Tokenizer::Impl* impl;
  DecoderRun run;
};

// The Impl, not the Tokenizer, is what is kept: it stays where it is when the Tokenizer moves.
TokenStream::TokenStream(const Tokenizer& tokenizer) : state_(new State{tokenizer.impl_.get(), DecoderRun(tokenizer.impl_->decoder)}) {}
TokenStream::TokenStream(TokenStream&&) noexcept = default;
TokenStream& TokenStream::operator=(TokenStream&&) noexcept = default;
TokenStream::~TokenStream() = default;

Result<std::string> TokenStream::push(int32_t id) {
  const auto& impl = *state_->impl;
  if (id < 0 || size_t(id) >= impl.limit()) return err(Code::kTokenOutside, {{"id", id}, {"size", impl.limit()}});
  if (impl.has(id) && !impl.added.is_special(id)) state_->run.push(impl.token(id));
  return state_->run.take();
}

std::string TokenStream::finish() {
  state_->run.finish();
  return state_->run.take();
}

}  // namespace sb
