// A key-value cache as pages that never move: a page holds 64 tokens of every layer, keys then values, head by head, so that attention
// reads a head's in one stream, and is taken when the first of its tokens comes. Low-bit pages replace a page's bytes one page at a time.
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
  /// `width`: elements a token, layer and part has (K · dh), of heads of `head_dim`. Elements are float32 or, when `half`, float16. Layers
  /// are first_layer … first_layer + n_layers − 1. With a device's `storage` (Device::kv_storage) nothing lies in pages here.
  KvPages(int32_t n_layers, int32_t width, int64_t head_dim, bool half, int32_t first_layer = 0,
          std::unique_ptr<KvStorage> storage = nullptr)
      : n_layers_(n_layers),
        width_(width),
        head_dim_(std::max<int64_t>(1, head_dim)),
        first_layer_(first_layer),
        half_(half),
        storage_(std::move(storage)) {
    SB_ASSERT(width_ % head_dim_ == 0);
  }

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
  int64_t head_dim() const { return head_dim_; }
  int64_t row_bytes() const { return width_ * element_bytes(); }  // of a token
  int64_t head_bytes() const { return head_dim_ * element_bytes(); }
  uint64_t n_bytes() const { return storage_ ? storage_->n_bytes() : pages_.size() * uint64_t(n_layers_) * 2 * part_bytes(); }
  KvStorage* storage() const { return storage_.get(); }
  /// Puts a token's elements there, wherever they lie.
  void write(int64_t token, int32_t layer, int part, const std::byte* from) {
    if (storage_) return storage_->write(token, layer, part, from);
    for (int64_t column = 0; column < width_; column += head_dim_, from += head_bytes())
      std::memcpy(at(token, layer, part, column), from, size_t(head_bytes()));
  }
  /// Element `column` of a token's keys (part 0) or values (part 1). The others of its head follow; head_bytes() on is the next token's,
  /// until the page ends.
  std::byte* at(int64_t token, int32_t layer, int part, int64_t column) {
    std::byte* page = pages_[size_t(token / kPageTokens)].data() + (uint64_t(layer - first_layer_) * 2 + uint64_t(part)) * part_bytes();
    return page + (column / head_dim_ * kPageTokens + token % kPageTokens) * head_bytes() + column % head_dim_ * element_bytes();
  }

 private:
  int64_t element_bytes() const { return half_ ? 2 : 4; }
  uint64_t part_bytes() const { return uint64_t(kPageTokens) * uint64_t(row_bytes()); }

  int32_t n_layers_, width_;
  int64_t head_dim_;
  int32_t first_layer_;
  bool half_;
  std::unique_ptr<KvStorage> storage_;
  std::vector<Block> pages_;
};

}  // namespace sb
