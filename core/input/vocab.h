// Tokens and their ids: one arena of text, one table of ids, one open-addressing hash. 262,144 tokens take about 6 MiB.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sb {

inline uint64_t hash_mix(uint64_t h) {
  h ^= h >> 32;
  h *= 0x9E3779B97F4A7C15ull;
  return h ^ h >> 29;
}
uint64_t hash_text(std::string_view text);

class Vocab {
 public:
  static constexpr int32_t kMostIds = 1 << 24;

  /// Gives `token` the id; a token that comes twice keeps the later id. False when the id is out of [0, kMostIds).
  bool add(std::string_view token, int32_t id);
  /// After the last add: the index by id. False (and the id in `clash`) when two tokens share an id or the ids are absurdly sparse.
  bool finish(int32_t& clash);
  void reserve(size_t n_tokens);

  /// The id, or -1.
  int32_t find(std::string_view token) const;
  /// The token; empty when the id has none.
  std::string_view token(int32_t id) const;
  bool has(int32_t id) const { return id >= 0 && size_t(id) < entry_of_.size() && entry_of_[size_t(id)] != 0; }
  size_t count() const { return ids_.size(); }
  /// One more than the largest id.
  size_t limit() const { return limit_; }

 private:
  std::string_view text(size_t entry) const { return std::string_view(arena_).substr(ends_[entry], ends_[entry + 1] - ends_[entry]); }
  size_t slot_of(std::string_view token) const;
  void grow(size_t n_slots);

  std::string arena_;
  std::vector<uint32_t> ends_ = {0};  // entry e is arena[ends[e] … ends[e + 1])
  std::vector<int32_t> ids_;          // by entry
  std::vector<uint32_t> slots_;       // entry + 1, or 0
  std::vector<uint32_t> entry_of_;    // by id: entry + 1, or 0
  size_t limit_ = 0;
};

/// Texts by their bytes: finds all that are prefixes of what follows. Nodes stand breadth first, so siblings are neighbours.
class Trie {
 public:
  struct Entry {
    std::string_view text;
    int32_t value;  // >= 0
  };
  /// Of equal texts the last wins.
  void build(std::vector<Entry> entries);
  bool empty() const { return nodes_.empty(); }
  static constexpr uint32_t kRoot = 0, kNone = UINT32_MAX;
  uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == kRoot) return root_[byte];
    uint32_t low = nodes_[node].first_child, high = low + nodes_[node].n_children;
    while (high - low > 8) {
      uint32_t middle = (low + high) / 2;
      (nodes_[middle].byte <= byte ? low : high) = middle;
    }
    for (; low < high; ++low) {
      if (nodes_[low].byte == byte) return low;
    }
    return kNone;
  }
  /// The value of the text that ends at the node, or -1.
  int32_t value(uint32_t node) const { return nodes_[node].value; }

 private:
  struct Node {
    uint32_t first_child = 0;
    int32_t value = -1;
    uint16_t n_children = 0;
    uint8_t byte = 0;
  };
  std::vector<Node> nodes_;
  std::vector<uint32_t> root_ = std::vector<uint32_t>(256, kNone);
};

}  // namespace sb
