// Weights that are few levels times a scale of their row, as training at about two bits leaves them: exact as two planes, without rotation
// and without column scales (docs/formats.md §4).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "formats/planes.h"

namespace sb {

/// −1, 0, 1 (BitNet b1.58, Ma et al. 2024), and ∓½, ∓3/2 (ParetoQ at 2 bits, Liu et al. 2025).
enum class Levels : uint8_t { kTernary, kFour };

const char* levels_name(Levels levels);
/// Two planes and one tap: C = (½, ½), or (1, ½). By name it is plain2.
const PlaneCode& levels_code(Levels levels);

/// The scale s of a row whose every weight, rounded to `stored_as`, is a level times s; a row of zeros has 0. Nothing where there is none.
/// Types other than F16 and BF16 count as float32.
std::optional<float> levels_scale(Levels levels, std::span<const float> row, Dtype stored_as);

/// The signs of a row whose scale that is, into its words [2, K/32], which are 0 before. A row of scale 0 is left.
void pack_levels(Levels levels, std::span<const float> row, float scale, uint32_t* words, int64_t words_per_row);

/// Sets a weight's two signs.
inline void set_signs(uint32_t* words, int64_t words_per_row, int64_t k, bool first, bool second) {
  words[k / 32] |= uint32_t(first) << plane_bit(k);
  words[words_per_row + k / 32] |= uint32_t(second) << plane_bit(k);
}

}  // namespace sb
