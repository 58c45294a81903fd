// Every stored format, one row each, in the order of Dtype: who decodes it, and where its blocks keep their half-precision scales.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace sb {

/// Decodes `n` elements (whole blocks) from `from` into `to`.
using DecodeRow = void (*)(const std::byte* from, float* to, int64_t n);

// clang-format off
#define SB_FORMATS(ROW)                                                       \
  /*  name   decoder           bytes from a block's start to its f16 scales */ \
  ROW(F32,  decode_f32,         -1,  -1)                                      \
  ROW(F16,  decode_f16,         -1,  -1)                                      \
  ROW(BF16, decode_bf16,        -1,  -1)                                      \
  ROW(I32,  decode_i32,         -1,  -1)                                      \
  ROW(Q4_0, decode_q4_0,         0,  -1)                                      \
  ROW(Q4_1, decode_q4_1,         0,   2)                                      \
  ROW(Q5_0, decode_q5_0,         0,  -1)                                      \
  ROW(Q5_1, decode_q5_1,         0,   2)                                      \
  ROW(Q8_0, decode_q8_0,         0,  -1)                                      \
  ROW(Q2_K, decode_q2_k,        80,  82)                                      \
  ROW(Q3_K, decode_q3_k,       108,  -1)                                      \
  ROW(Q4_K, decode_q4_k,         0,   2)                                      \
  ROW(Q5_K, decode_q5_k,         0,   2)                                      \
  ROW(Q6_K, decode_q6_k,       208,  -1)                                      \
  ROW(U8,   decode_u8,          -1,  -1)                                      \
  ROW(Planes, decode_planes,    -1,  -1)
// clang-format on

#define SB_ROW(name, decoder, half, second_half) void decoder(const std::byte* from, float* to, int64_t n);
SB_FORMATS(SB_ROW)
#undef SB_ROW

struct Format {
  Dtype dtype;
  DecodeRow decode;
  int half_at[2];  // bytes; -1 when there is no such scale
};

inline constexpr Format kFormats[] = {
#define SB_ROW(name, decoder, half, second_half) {Dtype::k##name, decoder, {half, second_half}},
    SB_FORMATS(SB_ROW)
#undef SB_ROW
};
static_assert(sizeof(kFormats) / sizeof(kFormats[0]) == kDtypeCount, "a row of SB_DTYPES has no format");
static_assert(
    [] {
      for (size_t i = 0; i < kDtypeCount; ++i) {
        if (size_t(kFormats[i].dtype) != i) return false;
      }
      return true;
    }(),
    "SB_FORMATS and SB_DTYPES differ in order");

constexpr const Format& format_of(Dtype dtype) { return kFormats[size_t(dtype)]; }

}  // namespace sb
