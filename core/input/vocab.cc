#include "input/vocab.h"

#include <algorithm>
#include <cstring>

namespace sb {

uint64_t hash_text(std::string_view text) {
  uint64_t h = text.size() * 0xC2B2AE3D27D4EB4Full;
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    memcpy(&word, text.data() + i, 8);
    h = hash_mix(h ^ word);
  }
  uint64_t tail = 0;
  if (i < text.size()) memcpy(&tail, text.data() + i, text.size() - i);
  return hash_mix(h ^ tail ^ 0x9FB21C651E98DF25ull);
}

void Vocab::reserve(size_t n_tokens) {
  ends_.reserve(n_tokens + 1);
  ids_.reserve(n_tokens);
  size_t slots = 64;
  while (slots * 2 < n_tokens * 3) slots *= 2;
  if (slots > slots_.size()) grow(slots);
}

void Vocab::grow(size_t n_slots) {
  slots_.assign(n_slots, 0);
  for (size_t entry = 0; entry < ids_.size(); ++entry) {
    size_t slot = hash_text(text(entry)) & (n_slots - 1);
    while (slots_[slot]) slot = (slot + 1) & (n_slots - 1);
    slots_[slot] = uint32_t(entry + 1);
  }
}

size_t Vocab::slot_of(std::string_view token) const {
  size_t slot = hash_text(token) & (slots_.size() - 1);
  while (slots_[slot] && text(slots_[slot] - 1) != token) slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

bool Vocab::add(std::string_view token, int32_t id) {
  if (id < 0 || id >= kMostIds || arena_.size() + token.size() > UINT32_MAX) return false;
  if (slots_.empty() || ids_.size() * 3 >= slots_.size() * 2) grow(std::max<size_t>(64, slots_.size() * 2));
  size_t slot = slot_of(token);
  if (slots_[slot]) {
    ids_[slots_[slot] - 1] = id;
    return true;
  }
  arena_ += token;
  ends_.push_back(uint32_t(arena_.size()));
  ids_.push_back(id);
  slots_[slot] = uint32_t(ids_.size());
  return true;
}

bool Vocab::finish(int32_t& clash) {
  limit_ = 0;
  for (int32_t id : ids_) limit_ = std::max(limit_, size_t(id) + 1);
  clash = int32_t(limit_) - 1;
  if (limit_ > 16 * ids_.size() + (1 << 20)) return false;
  entry_of_.assign(limit_, 0);
  for (size_t entry = 0; entry < ids_.size(); ++entry) {
    uint32_t& at = entry_of_[size_t(ids_[entry])];
    clash = ids_[entry];
    if (at) return false;
    at = uint32_t(entry + 1);
  }
  arena_.shrink_to_fit();
  return true;
}

int32_t Vocab::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  uint32_t entry = slots_[slot_of(token)];
  return entry ? ids_[entry - 1] : -1;
}

std::string_view Vocab::token(int32_t id) const { return has(id) ? text(entry_of_[size_t(id)] - 1) : std::string_view(); }

void Trie::build(std::vector<Entry> entries) {
  nodes_.clear();
  root_.assign(256, kNone);
  std::vector<uint32_t> order(entries.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = uint32_t(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    int c = entries[a].text.compare(entries[b].text);
    return c != 0 ? c < 0 : a < b;
  });
  {
    std::vector<Entry> sorted(entries.size());
    for (size_t i = 0; i < order.size(); ++i) sorted[i] = entries[order[i]];
    entries.swap(sorted);
  }
  struct Range {
    size_t low, high, depth;
  };
  std::vector<Range> ranges = {{0, entries.size(), 0}};  // by node: the entries below it
  nodes_.emplace_back();
  for (size_t node = 0; node < nodes_.size(); ++node) {
    auto [low, high, depth] = ranges[node];
    while (low < high && entries[low].text.size() == depth) nodes_[node].value = entries[low++].value;
    nodes_[node].first_child = uint32_t(nodes_.size());
    while (low < high) {
      uint8_t byte = uint8_t(entries[low].text[depth]);
      size_t end = low;
      while (end < high && uint8_t(entries[end].text[depth]) == byte) ++end;
      ranges.push_back({low, end, depth + 1});
      nodes_.push_back({.byte = byte});
      ++nodes_[node].n_children;
      if (node == 0) root_[byte] = uint32_t(nodes_.size() - 1);
      low = end;
    }
  }
  nodes_.shrink_to_fit();
}

}  // namespace sb
