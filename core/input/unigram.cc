// Unigram (Kudo 2018): of all ways to cut a piece into tokens, the one with the highest sum of scores.
#include <algorithm>
#include <limits>

#include "input/model.h"
#include "input/unicode.h"

namespace sb {

namespace {

constexpr double kUnknownPenalty = 10.0;

class Unigram final : public TokenModel {
 public:
  Unigram(Vocab vocab, std::vector<double> scores, int32_t unknown, bool byte_fallback)
      : TokenModel(std::move(vocab)), scores_(std::move(scores)), unknown_(unknown), byte_fallback_(byte_fallback) {
    double least = std::numeric_limits<double>::infinity();
    for (double score : scores_) least = std::min(least, score);
    unknown_score_ = least - kUnknownPenalty;
    std::vector<Trie::Entry> entries;
    entries.reserve(vocab_.count());
    for (size_t id = 0; id < vocab_.limit(); ++id) {
      if (vocab_.has(int32_t(id)) && !vocab_.token(int32_t(id)).empty()) entries.push_back({vocab_.token(int32_t(id)), int32_t(id)});
    }
    trie_.build(std::move(entries));
  }

  Status encode(std::string_view piece, ModelScratch& s, std::vector<int32_t>& ids) const override {
    if (piece.empty()) return {};
    constexpr uint32_t kUnset = UINT32_MAX;
    auto& best = s.best;  // by byte: the best way to get there
    best.assign(piece.size() + 1, {0.0, kUnset, 0});
    for (size_t at = 0; at < piece.size();) {
      size_t n = utf8_length(piece[at]);
      double so_far = best[at].score;
      bool covered = false;
      auto offer = [&](size_t end, double score, int32_t id) {
        auto& target = best[end];
        if (target.start == kUnset || score > target.score) target = {score, uint32_t(at), id};
      };
      uint32_t node = Trie::kRoot;
      for (size_t i = at; i < piece.size(); ++i) {
        node = trie_.child(node, uint8_t(piece[i]));
        if (node == Trie::kNone) break;
        if (int32_t id = trie_.value(node); id >= 0) {
          offer(i + 1, scores_[size_t(id)] + so_far, id);
          covered = covered || i + 1 == at + n;
        }
      }
      if (!covered) {
        if (unknown_ < 0) return err(Code::kTokenizerInvalid, {{"why", "a character needs the unknown token, and unk_id is missing"}});
        offer(at + n, unknown_score_ + so_far, unknown_);
      }
      at += n;
    }
    // Backwards along the best path; neighbours that are unknown make one token.
    size_t first = ids.size(), unknown_end = 0;
    bool in_unknown = false;
    auto flush = [&](size_t start) {
      if (in_unknown) append_unknown(piece.substr(start, unknown_end - start), ids);
      in_unknown = false;
    };
    for (size_t end = piece.size(); end > 0;) {
      const auto& b = best[end];
      if (b.id == unknown_) {
        if (!in_unknown) unknown_end = end;
        in_unknown = true;
      } else {
        flush(end);
        ids.push_back(b.id);
      }
      end = b.start;
    }
    flush(0);
    std::reverse(ids.begin() + ptrdiff_t(first), ids.end());
    return {};
  }

 private:
  // Backwards: the caller turns everything round at the end.
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
    if (int32_t id = vocab_.find(text); id >= 0) {
      ids.push_back(id);
      return;
    }
    if (byte_fallback_) {
      static constexpr char kHex[] = "0123456789ABCDEF";
      size_t first = ids.size();
      for (size_t i = text.size(); i-- > 0;) {
        uint8_t b = uint8_t(text[i]);
        char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
        int32_t id = vocab_.find({name, 6});
        if (id < 0) {
          ids.resize(first);
          break;
        }
        ids.push_back(id);
      }
      if (ids.size() > first) return;
    }
    ids.push_back(unknown_);
  }

  std::vector<double> scores_;
  int32_t unknown_;
  bool byte_fallback_;
  double unknown_score_ = 0;
  Trie trie_;
};

}  // namespace

std::unique_ptr<TokenModel> make_unigram(Vocab vocab, std::vector<double> scores, int32_t unknown, bool byte_fallback) {
  return std::make_unique<Unigram>(std::move(vocab), std::move(scores), unknown, byte_fallback);
}

}  // namespace sb
