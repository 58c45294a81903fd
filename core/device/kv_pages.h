// A key-value cache as pages that never move: a page holds 64 tokens of every layer, keys then values, and is taken when the first of
// its tokens comes. Low-bit pages replace a page's bytes one page at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/memory.h"
#include "base/result.h"

namespace sb {

inline constexpr int32_t kPageTokens = 64;

/// A cache that lies on a device of its own.
class KvStorage {
 public:
  virtual ~KvStorage() = default;
  virtual Status reserve(int64_t n_tokens) = 0;
  virtual void shrink(int64_t n_tokens) = 0;
  virtual uint64_t n_bytes() const = 0;
  virtual void write(int64_t token, int32_t layer, int part, const std::byte* row) = 0;
};

class KvPages {
 public:
  /// `width`: elements a token, layer and part has (K · dh). Elements are float32 or, when `half`, float16. Layers are first_layer …
  /// first_layer + n_layers − 1. With a device's `storage` (Device::kv_storage) nothing lies in pages here.
  KvPages(int32_t n_layers, int32_t width, bool half, int32_t first_layer = 0, std::unique_ptr<KvStorage> storage = nullptr)
      : n_layers_(n_layers), width_(width), first_layer_(first_layer), half_(half), storage_(std::move(storage)) {}

  /// Makes room for tokens 0 … n_tokens − 1. Errors: kMemoryExhausted (what was there stays).
  Status reserve(int64_t n_tokens) {
    if (storage_) return storage_->reserve(n_tokens);
    while (int64_t(pages_.size()) * kPageTokens < n_tokens) {
      SB_TRY(Block page, Block::take(Tag::kKv, uint64_t(n_layers_) * 2 * part_bytes()));
      pages_.push_back(std::move(page));
    }
    return {};
  }
  /// Gives back the pages that hold no token below n_tokens.
  void shrink(int64_t n_tokens) {
    if (storage_) return storage_->shrink(n_tokens);
    pages_.resize(std::min(pages_.size(), size_t((n_tokens + kPageTokens - 1) / kPageTokens)));
  }

  bool half() const { return half_; }
  int32_t width() const { return width_; }
  int64_t row_bytes() const { return int64_t(width_) * (half_ ? 2 : 4); }
  uint64_t n_bytes() const { return storage_ ? storage_->n_bytes() : pages_.size() * uint64_t(n_layers_) * 2 * part_bytes(); }
  /// The rows of one page for a layer's keys (part 0) or values (part 1): [kPageTokens, width].
  std::byte* page(int64_t page_index, int32_t layer, int part) {
    return pages_[size_t(page_index)].data() + (uint64_t(layer - first_layer_) * 2 + uint64_t(part)) * part_bytes();
  }
  KvStorage* storage() const { return storage_.get(); }
  /// Puts a token's elements there, wherever they lie.
  void write(int64_t token, int32_t layer, int part, const std::byte* from) {
    if (storage_) return storage_->write(token, layer, part, from);
    std::memcpy(row(token, layer, part), from, size_t(row_bytes()));
  }
  /// The row of one token.
  std::byte* row(int64_t token, int32_t layer, int part) {
    return page(token / kPageTokens, layer, part) + (token % kPageTokens) * row_bytes();
  }

 private:
  uint64_t part_bytes() const { return uint64_t(kPageTokens) * uint64_t(row_bytes()); }

  int32_t n_layers_, width_, first_layer_;
  bool half_;
  std::unique_ptr<KvStorage> storage_;
  std::vector<Block> pages_;
};

}  // namespace sb
