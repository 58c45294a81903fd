// In which order refinements are given back when memory is short: the one that costs least loss a byte first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sb {

/// What a matrix's refinement buys, as its encoder measured it on the calibration text.
struct RefinementValue {
  std::string matrix;
  double base_error = 0;     // tr(E H Eᵀ) of the base alone …
  double refined_error = 0;  // … and with the refinement
  double power = 0;          // tr(W H Wᵀ)
  uint64_t n_bytes = 0;      // of the refinement's arrays
};

/// Names of matrices, by rising share of the output's power that is lost a byte when the refinement goes: (base − refined) / power / bytes.
/// Equals keep their order.
std::vector<std::string> give_back_order(const std::vector<RefinementValue>& refinements);

}  // namespace sb
