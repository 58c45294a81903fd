// Byte-pair encoding (Sennrich et al. 2016): characters, then the best-ranked neighbours are merged until none can be.
#include <algorithm>
#include <array>

#include "input/model.h"
#include "input/unicode.h"

namespace sb {

namespace {

struct Alphabet {
  std::array<std::array<char, 3>, 256> letters{};  // size, then at most two bytes
  std::array<int16_t, 0x144> bytes{};

  constexpr Alphabet() {
    bytes.fill(-1);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      int c = printable ? b : next++;
      bytes[size_t(c)] = int16_t(b);
      if (c < 128) {
        letters[size_t(b)] = {1, char(c), 0};
      } else {
        letters[size_t(b)] = {2, char(0xC0 | c >> 6), char(0x80 | (c & 63))};
      }
    }
  }
};
constexpr Alphabet kAlphabet;

class MergeTable {
 public:
  explicit MergeTable(std::vector<MergePair> pairs) : pairs_(std::move(pairs)) {
    size_t n = 64;
    while (n * 2 < pairs_.size() * 3) n *= 2;
    slots_.assign(n, 0);
    for (size_t rank = 0; rank < pairs_.size(); ++rank) slots_[slot_of(pairs_[rank].left, pairs_[rank].right)] = uint32_t(rank + 1);
  }
  /// The rank, or -1.
  int64_t find(int32_t left, int32_t right) const { return int64_t(slots_[slot_of(left, right)]) - 1; }
  int32_t joined(uint32_t rank) const { return pairs_[rank].joined; }
  const std::vector<MergePair>& pairs() const { return pairs_; }

 private:
  size_t slot_of(int32_t left, int32_t right) const {
    size_t slot = hash_mix(uint64_t(uint32_t(left)) << 32 | uint32_t(right)) & (slots_.size() - 1);
    for (; slots_[slot]; slot = (slot + 1) & (slots_.size() - 1)) {
      const MergePair& p = pairs_[slots_[slot] - 1];
      if (p.left == left && p.right == right) break;
    }
    return slot;
  }
  std::vector<MergePair> pairs_;
  std::vector<uint32_t> slots_;  // rank + 1, or 0
};

class Bpe final : public TokenModel {
 public:
  Bpe(Vocab vocab, std::vector<MergePair> merges, BpeOptions options)
      : TokenModel(std::move(vocab)), merges_(std::move(merges)), options_(std::move(options)) {
    unknown_ = options_.has_unknown ? vocab_.find(options_.unknown) : -1;
    static constexpr char kHex[] = "0123456789ABCDEF";
    for (size_t b = 0; b < 256; ++b) {
      char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
      fallback_[b] = options_.byte_fallback ? vocab_.find({name, 6}) : -1;
      letter_[b] = vocab_.find(byte_letter(uint8_t(b)));
    }
    find_cuts();
  }

  Status encode(std::string_view piece, ModelScratch& s, std::vector<int32_t>& ids) const override {
    if (piece.empty()) return {};
    bool plain = options_.continuing_prefix.empty() && options_.word_suffix.empty();
    if (options_.maps_bytes && !(plain && !options_.ignores_merges && !options_.has_unknown && !options_.byte_fallback)) {
      s.text.clear();
      for (char b : piece) s.text += byte_letter(uint8_t(b));
      piece = s.text;
    } else if (options_.maps_bytes) {
      s.symbols.clear();
      for (char b : piece) {
        if (int32_t id = letter_[uint8_t(b)]; id >= 0 || options_.keeps_gaps) add(s, id, 1);
      }
      merge(s, ids);
      return {};
    }
    if (options_.ignores_merges) {
      if (int32_t id = vocab_.find(piece); id >= 0) {
        ids.push_back(id);
        return {};
      }
    }
    SB_OK(split(piece, s));
    merge(s, ids);
    return {};
  }

  size_t cut(std::string_view piece, size_t from) const override {
    if (!cuts_) return piece.size();
    for (size_t at = from;; ++at) {
      at = piece.find("\xE2\x96\x81", at);
      if (at == std::string_view::npos) return piece.size();
      if (at > 0 && !crossing_[uint8_t(piece[at - 1])]) return at;
    }
  }

 private:
  static void add(ModelScratch& s, int32_t id, size_t n_bytes) {
    int32_t place = int32_t(s.symbols.size());
    if (place > 0) s.symbols.back().next = place;
    s.symbols.push_back({id, place - 1, -1, uint32_t(n_bytes)});
  }

  // Text without a pre-tokenizer (Llama 2, Gemma) is one long word. It may be cut before a ▁ when no token has that byte before a ▁ inside.
  void find_cuts() {
    if (options_.ignores_merges || !options_.continuing_prefix.empty() || !options_.word_suffix.empty() || options_.maps_bytes) return;
    if (options_.has_unknown && vocab_.find("\xE2\x96\x81") < 0) return;
    for (const MergePair& m : merges_.pairs()) {
      std::string_view token = vocab_.token(m.joined);
      for (size_t at = token.find("\xE2\x96\x81", 1); at != std::string_view::npos; at = token.find("\xE2\x96\x81", at + 3))
        crossing_[uint8_t(token[at - 1])] = true;
    }
    crossing_[0x81] = true;  // ▁▁ itself
    cuts_ = true;
  }

  // The piece as its characters' tokens; what has none becomes bytes, or the unknown token, or nothing.
  Status split(std::string_view piece, ModelScratch& s) const {
    s.symbols.clear();
    std::string spelt;
    int32_t pending = -1;  // an unknown token not yet added, in case it is fused
    size_t pending_bytes = 0;
    for (size_t at = 0; at < piece.size();) {
      size_t n = utf8_length(piece[at]);
      std::string_view letter = piece.substr(at, n);
      bool first = at == 0, last = at + n >= piece.size();
      at += n;
      if ((!first && !options_.continuing_prefix.empty()) || (last && !options_.word_suffix.empty())) {
        spelt.clear();
        if (!first) spelt += options_.continuing_prefix;
        spelt += letter;
        if (last) spelt += options_.word_suffix;
        letter = spelt;
      }
      int32_t id = vocab_.find(letter);
      if (id >= 0) {
        if (pending >= 0) add(s, pending, pending_bytes);
        pending = -1;
        add(s, id, n);
        continue;
      }
      if (options_.byte_fallback && std::all_of(letter.begin(), letter.end(), [&](char b) { return fallback_[uint8_t(b)] >= 0; })) {
        // As Hugging Face has it: an unknown token waits on while bytes go before it.
        for (char b : letter) add(s, fallback_[uint8_t(b)], 1);
        continue;
      }
      if (!options_.has_unknown) {
        if (options_.keeps_gaps) add(s, -1, n);
        continue;
      }
      if (unknown_ < 0)
        return err(Code::kTokenizerInvalid, {{"why", "its unknown token " + options_.unknown + " is not in the vocabulary"}});
      if (pending >= 0 && options_.fuses_unknown) {
        pending_bytes += n;
        continue;
      }
      if (pending >= 0) add(s, pending, pending_bytes);
      pending = unknown_, pending_bytes = n;
    }
    if (pending >= 0) add(s, pending, pending_bytes);
    return {};
  }

  // A queue entry is (rank, place). It is stale when the pair that now stands there merges into something else: this, not the rank, is
  // what Hugging Face compares, and so two ways to spell one token are interchangeable here too.
  void merge(ModelScratch& s, std::vector<int32_t>& ids) const {
    auto& symbols = s.symbols;
    auto& queue = s.queue;
    queue.clear();
    auto offer = [&](int32_t left, int32_t right) {
      int64_t rank = merges_.find(symbols[size_t(left)].id, symbols[size_t(right)].id);
      if (rank >= 0) queue.push_back(uint64_t(rank) << 32 | uint32_t(left));
      return rank >= 0;
    };
    for (size_t i = 0; i + 1 < symbols.size(); ++i) offer(int32_t(i), int32_t(i + 1));
    const bool few = symbols.size() <= 24;  // a scan beats a heap on short words
    if (!few) std::make_heap(queue.begin(), queue.end(), std::greater<>());
    while (!queue.empty()) {
      uint64_t top;
      if (few) {
        auto least = std::min_element(queue.begin(), queue.end());
        top = *least;
        *least = queue.back();
      } else {
        std::pop_heap(queue.begin(), queue.end(), std::greater<>());
        top = queue.back();
      }
      queue.pop_back();
      auto& left = symbols[uint32_t(top)];
      if (left.n_bytes == 0 || left.next < 0) continue;
      auto& right = symbols[size_t(left.next)];
      int64_t rank = merges_.find(left.id, right.id);
      int32_t joined = merges_.joined(uint32_t(top >> 32));
      if (rank < 0 || merges_.joined(uint32_t(rank)) != joined) continue;
      left.id = joined;
      left.n_bytes += right.n_bytes;
      left.next = right.next;
      right.n_bytes = 0;
      if (right.next >= 0) symbols[size_t(right.next)].previous = int32_t(uint32_t(top));
      auto push = [&](int32_t a, int32_t b) {
        if (offer(a, b) && !few) std::push_heap(queue.begin(), queue.end(), std::greater<>());
      };
      if (left.previous >= 0) push(left.previous, int32_t(uint32_t(top)));
      if (left.next >= 0) push(int32_t(uint32_t(top)), left.next);
    }
    for (const auto& symbol : symbols) {
      if (symbol.n_bytes && symbol.id >= 0) ids.push_back(symbol.id);
    }
  }

  MergeTable merges_;
  BpeOptions options_;
  int32_t unknown_ = -1;
  std::array<int32_t, 256> fallback_, letter_;
  std::array<bool, 256> crossing_{};
  bool cuts_ = false;
};

}  // namespace

std::string_view byte_letter(uint8_t byte) { return {&kAlphabet.letters[byte][1], size_t(kAlphabet.letters[byte][0])}; }
int byte_of_letter(char32_t c) { return c < kAlphabet.bytes.size() ? kAlphabet.bytes[c] : -1; }

int32_t joined_id(const Vocab& vocab, std::string_view left, std::string_view right, size_t prefix_size, std::string& buffer) {
  if (right.size() < prefix_size) return -1;
  buffer.assign(left);
  buffer += right.substr(prefix_size);
  return vocab.find(buffer);
}

std::unique_ptr<TokenModel> make_bpe(Vocab vocab, std::vector<MergePair> merges, BpeOptions options) {
  return std::make_unique<Bpe>(std::move(vocab), std::move(merges), std::move(options));
}

}  // namespace sb
