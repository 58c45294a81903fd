// What calibration keeps of its windows between two stages of a layer: rows of float16 with a power of two each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/booked.h"

namespace sb {

/// 11 bits of every number: what is lost is a ten-thousandth of what quantising loses, and it halves the state (docs/formats.md §2).
class KeptWindows {
 public:
  explicit KeptWindows(size_t n_windows) : windows_(n_windows) {}

  size_t size() const { return windows_.size(); }
  /// Value i of a window: rows of `width` floats.
  void store(size_t window, size_t i, int64_t width, std::span<const float> rows);
  /// Back to floats; `rows` has the size that was stored.
  void load(size_t window, size_t i, std::span<float> rows) const;
  /// Forgets the values from number n on.
  void shrink(size_t window, size_t n) { windows_[window].resize(n); }

  struct Value {
    int64_t width = 0;
    Booked<uint16_t> halves;
    Booked<float> scales;  // one a row
  };
  /// For a checkpoint.
  std::vector<std::vector<Value>>& values() { return windows_; }

 private:
  std::vector<std::vector<Value>> windows_;  // [window][value]
};

}  // namespace sb
