// What every op computes, as the plain loop in double precision: the definition, the oracle of all kernels, and device "cpu" with
// isa "scalar".
#pragma once

#include <array>

#include "device/device.h"

namespace sb {

/// The memory of one node's values.
struct OpViews {
  std::array<TensorView, 4> in;
  std::array<bool, 4> has = {};  // which inputs are there
  MutableTensorView out;
};

/// Computes one node from start to end.
void run_reference(const Op& op, const OpViews& views, const Scalars& scalars);

/// The scalar activation functions, as the op structs name them.
double activation_reference(Activation act, double x);

}  // namespace sb
