#include "quantize/kept_windows.h"

#include "base/result.h"
#include "device/cpu/quantize_kernels.h"

namespace sb {

void KeptWindows::store(size_t window, size_t i, int64_t width, std::span<const float> rows) {
  std::vector<Value>& values = windows_[window];
  if (values.size() <= i) values.resize(i + 1);
  Value& v = values[i];
  v.width = width;
  v.halves.resize(rows.size());
  v.scales.resize(rows.size() / size_t(width));
  for (size_t r = 0; r < v.scales.size(); ++r)
    v.scales[r] = quantize_kernels().halve(rows.data() + int64_t(r) * width, v.halves.data() + int64_t(r) * width, width);
}

void KeptWindows::load(size_t window, size_t i, std::span<float> rows) const {
  const Value& v = windows_[window][i];
  SB_ASSERT(v.halves.size() == rows.size());
  for (size_t r = 0; r < v.scales.size(); ++r)
    quantize_kernels().widen(v.halves.data() + int64_t(r) * v.width, v.scales[r], rows.data() + int64_t(r) * v.width, v.width);
}

}  // namespace sb
