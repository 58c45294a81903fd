// Scalar decoding of every stored type to float32: the definition that all kernels are held to.
// Layouts: GGUF (ggml's block types), IEEE half and bfloat16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace sb {

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);  // round to nearest, ties to even
inline float bfloat_to_float(uint16_t b) { return __builtin_bit_cast(float, uint32_t(b) << 16); }

/// Decodes `n` elements (a multiple of the type's block) from `from` into `to`. kI32 converts to float.
void decode_row(Dtype dtype, const std::byte* from, float* to, int64_t n);

}  // namespace sb
