#include "formats/levels.h"

#include <algorithm>
#include <cmath>

#include "formats/decode.h"

namespace sb {
namespace {

struct LevelsRow {
  const char* name;
  PlaneCode code;
};
constexpr LevelsRow kLevels[] = {{"ternary", {2, 1, {{{0.5f, 0.5f}}}}}, {"four levels", {2, 1, {{{1.0f, 0.5f}}}}}};

float rounded_to(Dtype dtype, float v) {
  if (dtype == Dtype::kF16) return half_to_float(float_to_half(v));
  if (dtype != Dtype::kBF16) return v;
  const uint32_t bits = __builtin_bit_cast(uint32_t, v);
  return bfloat_to_float(uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16));
}

/// Half the distance from v > 0 to the next number of the type above it, or below it, which is half as far from a power of two.
double half_step(Dtype dtype, float v, bool is_below) {
  int exponent;
  (void)std::frexp(is_below ? std::nextafter(v, 0.0f) : v, &exponent);
  const int digits = dtype == Dtype::kF16 ? 11 : dtype == Dtype::kBF16 ? 8 : 24;
  return std::ldexp(0.5, std::max(exponent - digits, dtype == Dtype::kF16 ? -24 : -149));
}

/// s with ½·s and 3/2·s rounding to a and b.
std::optional<float> four_scale(float a, float b, Dtype dtype) {
  const double least = std::max(2 * (double(a) - half_step(dtype, a, true)), (double(b) - half_step(dtype, b, true)) / 1.5);
  const double most = std::min(2 * (double(a) + half_step(dtype, a, false)), (double(b) + half_step(dtype, b, false)) / 1.5);
  for (const float s : {2 * a, float(double(b) / 1.5), float((least + most) / 2)}) {
    if (rounded_to(dtype, 0.5f * s) == a && rounded_to(dtype, 1.5f * s) == b) return s;
  }
  return std::nullopt;
}

}  // namespace

const char* levels_name(Levels levels) { return kLevels[size_t(levels)].name; }
const PlaneCode& levels_code(Levels levels) { return kLevels[size_t(levels)].code; }

std::optional<float> levels_scale(Levels levels, std::span<const float> row, Dtype stored_as) {
  float small = 0, large = 0;  // the two magnitudes there may be
  bool has_zero = false;
  for (const float w : row) {
    const float size = std::fabs(w);
    if (size == 0) {
      has_zero = true;
    } else if (size == small || size == large) {
      continue;
    } else if (small == 0) {
      small = size;
    } else if (large == 0 && levels == Levels::kFour) {
      large = size;
    } else {
      return std::nullopt;
    }
  }
  if (small == 0) return 0.0f;
  if (levels == Levels::kTernary) return small;
  if (has_zero) return std::nullopt;
  if (large == 0) return 2 * small;
  if (small > large) std::swap(small, large);
  return four_scale(small, large, stored_as);
}

void pack_levels(Levels levels, std::span<const float> row, float scale, uint32_t* words, int64_t words_per_row) {
  if (scale == 0) return;
  for (size_t k = 0; k < row.size(); ++k) {
    const bool plus = row[k] > 0;
    if (levels == Levels::kTernary) {
      set_signs(words, words_per_row, int64_t(k), row[k] >= 0, plus);  // zero is ½ − ½
    } else {
      set_signs(words, words_per_row, int64_t(k), plus, (std::fabs(row[k]) > scale) == plus);
    }
  }
}

}  // namespace sb
