// What calibration keeps of its windows between two stages of a layer: rows of float16 with a power of two each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/booked.h"
#include "quantize/checkpoint.h"
#include "quantize/scratch.h"

namespace sb {

/// 11 bits of every number: what is lost is a ten-thousandth of what quantising loses, and it halves the state (docs/formats.md §2).
class KeptWindows {
 public:
  /// In memory, or in `aside`, which outlives it.
  explicit KeptWindows(size_t n_windows, ScratchSpace* aside = nullptr) : windows_(n_windows), aside_(aside) {}

  size_t size() const { return windows_.size(); }
  /// Value i of a window: rows of `width` floats.
  void store(size_t window, size_t i, int64_t width, std::span<const float> rows);
  /// Back to floats; `rows` has the size that was stored.
  void load(size_t window, size_t i, std::span<float> rows);
  /// Forgets the values from number n on.
  void shrink(size_t window, size_t n);
  /// It must live, and stay as it is, until the checkpoint has been taken.
  void save(CheckpointWriter& to);
  /// Into one of as many windows, or of none where nothing was kept any more.
  void restore(CheckpointReader& from);

 private:
  struct Rows {
    Booked<uint16_t> halves;
    Booked<float> scales;  // one a row
    void resize(int64_t width, size_t n_rows);
  };
  struct Value {
    int64_t width = 0;  // 0: nothing is kept
    size_t n_rows = 0;
    Rows rows;    // in memory
    Place place;  // aside: the halves, then the scales
    uint64_t scales_at() const { return place.offset + 2 * uint64_t(width) * n_rows; }
  };
  /// Puts what is in room_ aside.
  void put_aside(Value& value);

  std::vector<std::vector<Value>> windows_;  // [window][value]
  ScratchSpace* aside_ = nullptr;
  Rows room_;  // of the value that is on its way aside or back
};

}  // namespace sb
