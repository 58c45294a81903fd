#include "quantize/kept_windows.h"

#include <algorithm>

#include "device/cpu/quantize_kernels.h"

namespace sb {

void KeptWindows::Rows::resize(int64_t width, size_t n_rows) {
  halves.resize(size_t(width) * n_rows);
  scales.resize(n_rows);
}

void KeptWindows::put_aside(Value& value) {
  aside_->fit(value.place, value.n_rows * (2 * uint64_t(value.width) + sizeof(float)));
  aside_->keep(value.place.offset, room_.halves);
  aside_->keep(value.scales_at(), room_.scales);
}

void KeptWindows::store(size_t window, size_t i, int64_t width, std::span<const float> rows) {
  std::vector<Value>& values = windows_[window];
  if (values.size() <= i) values.resize(i + 1);
  Value& v = values[i];
  v.width = width;
  v.n_rows = rows.size() / size_t(width);
  Rows& to = aside_ ? room_ : v.rows;
  to.resize(width, v.n_rows);
  for (size_t r = 0; r < v.n_rows; ++r)
    to.scales[r] = quantize_kernels().halve(rows.data() + int64_t(r) * width, to.halves.data() + int64_t(r) * width, width);
  if (aside_) put_aside(v);
}

void KeptWindows::load(size_t window, size_t i, std::span<float> rows) {
  const Value& v = windows_[window][i];
  SB_ASSERT(v.n_rows * size_t(v.width) == rows.size());
  Rows& kept = aside_ ? room_ : windows_[window][i].rows;
  if (aside_) {
    room_.resize(v.width, v.n_rows);
    aside_->bring(v.place.offset, room_.halves);
    aside_->bring(v.scales_at(), room_.scales);
  }
  for (size_t r = 0; r < v.n_rows; ++r)
    quantize_kernels().widen(kept.halves.data() + int64_t(r) * v.width, kept.scales[r], rows.data() + int64_t(r) * v.width, v.width);
}

void KeptWindows::shrink(size_t window, size_t n) {
  for (size_t i = n; i < windows_[window].size(); ++i) {
    windows_[window][i].width = 0;
    windows_[window][i].rows = {};
  }
}

void KeptWindows::save(CheckpointWriter& to) {
  to.number(windows_.size());
  for (const std::vector<Value>& window : windows_) {
    to.number(uint64_t(std::count_if(window.begin(), window.end(), [](const Value& v) { return v.width > 0; })));
    for (const Value& v : window) {
      if (v.width == 0) continue;
      to.number(uint64_t(v.width));
      if (!aside_) {
        to.array(v.rows.halves);
        to.array(v.rows.scales);
        continue;
      }
      auto at = [this](uint64_t offset) {
        return [this, offset](uint64_t i, std::span<std::byte> b) { return aside_->bring(offset + i, b); };
      };
      to.array_elsewhere<uint16_t>(uint64_t(v.width) * v.n_rows, at(v.place.offset));
      to.array_elsewhere<float>(v.n_rows, at(v.scales_at()));
    }
  }
}

void KeptWindows::restore(CheckpointReader& from) {
  const uint64_t n = from.number();
  if (n == 0) windows_.clear();
  if (n != windows_.size()) return from.fail();
  for (std::vector<Value>& window : windows_) {
    window.clear();
    for (size_t n_values = from.count(); n_values > 0; --n_values) {
      Value& v = window.emplace_back();
      v.width = int64_t(from.number());
      Rows& to = aside_ ? room_ : v.rows;
      from.array(to.halves);
      from.array(to.scales);
      v.n_rows = to.scales.size();
      if (v.width < 1 || to.halves.size() / size_t(v.width) != v.n_rows || to.halves.size() % size_t(v.width)) return from.fail();
      if (aside_) put_aside(v);
    }
  }
}

}  // namespace sb
