// The stored types as ggml defines them (ggml-quants.c, dequantize_row_*): the same products in the same order, so that the floats are
// the same bits. Kernels are held to these loops; nothing here is meant to be fast.
#include "formats/decode.h"

#include <cstring>

#include "base/result.h"
#include "formats/list.h"

// A fused multiply-add would round once where the definition rounds twice.
#pragma STDC FP_CONTRACT OFF

namespace sb {
namespace {

uint16_t load_u16(const std::byte* from) {
  uint16_t v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
uint32_t load_u32(const std::byte* from) {
  uint32_t v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
float load_half(const std::byte* from) { return half_to_float(load_u16(from)); }
int at(const std::byte* from, int64_t i) { return int(from[i]); }
int signed_at(const std::byte* from, int i) { return int(int8_t(from[i])); }

/// Calls block(from, to) for each block of `n` elements.
template <class Block>
void each_block(Dtype dtype, const std::byte* from, float* to, int64_t n, Block block) {
  const DtypeRow& row = dtype_row(dtype);
  for (int64_t i = 0; i < n; i += row.block, from += row.bytes_per_block, to += row.block) block(from, to);
}

struct ScaleAndMin {
  int scale, min;
};
/// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes.
ScaleAndMin scale_min_k(const std::byte* packed, int j) {
  if (j < 4) return {at(packed, j) & 63, at(packed, j + 4) & 63};
  return {(at(packed, j + 4) & 15) | ((at(packed, j - 4) >> 6) << 4), (at(packed, j + 4) >> 4) | ((at(packed, j) >> 6) << 4)};
}

}  // namespace

void decode_f32(const std::byte* from, float* to, int64_t n) { std::memcpy(to, from, size_t(n) * 4); }

void decode_f16(const std::byte* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = load_half(from + 2 * i);
}

void decode_bf16(const std::byte* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = bfloat_to_float(load_u16(from + 2 * i));
}

void decode_i32(const std::byte* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = float(int32_t(load_u32(from + 4 * i)));
}

void decode_u8(const std::byte* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = float(at(from, int(i)));
}

// A row of planes is decoded from its matrix (formats/planes.h), never from bytes of its own.
void decode_planes(const std::byte*, float*, int64_t) { SB_ASSERT(false); }

// {f16 d, 16 × two nibbles}: low nibbles are elements 0 … 15, high ones 16 … 31. The same split holds for the next three.
void decode_q4_0(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ4_0, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b);
    for (int j = 0; j < 16; ++j) {
      const int q = at(b, 2 + j);
      y[j] = float((q & 15) - 8) * d;
      y[j + 16] = float((q >> 4) - 8) * d;
    }
  });
}

void decode_q4_1(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ4_1, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b), m = load_half(b + 2);
    for (int j = 0; j < 16; ++j) {
      const int q = at(b, 4 + j);
      y[j] = float(q & 15) * d + m;
      y[j + 16] = float(q >> 4) * d + m;
    }
  });
}

// {f16 d, u32 fifth bits, nibbles}
void decode_q5_0(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ5_0, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b);
    const uint32_t high = load_u32(b + 2);
    for (int j = 0; j < 16; ++j) {
      const int q = at(b, 6 + j);
      y[j] = float(((q & 15) | (int(high >> j & 1) << 4)) - 16) * d;
      y[j + 16] = float(((q >> 4) | (int(high >> (j + 16) & 1) << 4)) - 16) * d;
    }
  });
}

void decode_q5_1(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ5_1, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b), m = load_half(b + 2);
    const uint32_t high = load_u32(b + 4);
    for (int j = 0; j < 16; ++j) {
      const int q = at(b, 8 + j);
      y[j] = float((q & 15) | (int(high >> j & 1) << 4)) * d + m;
      y[j + 16] = float((q >> 4) | (int(high >> (j + 16) & 1) << 4)) * d + m;
    }
  });
}

void decode_q8_0(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ8_0, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b);
    for (int j = 0; j < 32; ++j) y[j] = float(signed_at(b, 2 + j)) * d;
  });
}

// {16 × (4-bit scale, 4-bit min), 64 bytes of 2-bit values, f16 d, f16 dmin}: 16 groups of 16.
void decode_q2_k(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ2_K, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b + 80), min = load_half(b + 82);
    for (int group = 0; group < 16; ++group) {
      const std::byte* q = b + 16 + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const float dl = d * float(at(b, group) & 15), ml = min * float(at(b, group) >> 4);
      for (int l = 0; l < 16; ++l) *y++ = dl * float(at(q, l) >> shift & 3) - ml;
    }
  });
}

// {32 bytes of third bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, f16 d}
void decode_q3_k(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ3_K, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b + 108);
    const std::byte* packed = b + 96;
    for (int group = 0; group < 16; ++group) {
      const int low = group < 8 ? at(packed, group) & 15 : at(packed, group - 8) >> 4;
      const int scale = (low | ((at(packed, 8 + group % 4) >> (group / 4 * 2) & 3) << 4)) - 32;
      const std::byte* q = b + 32 + group / 8 * 32 + group % 2 * 16;
      const std::byte* third = b + group % 2 * 16;
      const int shift = group % 8 / 2 * 2, bit = group / 2;
      const float dl = d * float(scale);
      for (int l = 0; l < 16; ++l) *y++ = dl * float((at(q, l) >> shift & 3) - ((at(third, l) >> bit & 1) ? 0 : 4));
    }
  });
}

// {f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles}: 8 groups of 32.
void decode_q4_k(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ4_K, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b), min = load_half(b + 2);
    for (int group = 0; group < 8; ++group) {
      const ScaleAndMin s = scale_min_k(b + 4, group);
      const std::byte* q = b + 16 + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float dl = d * float(s.scale), ml = min * float(s.min);
      for (int l = 0; l < 32; ++l) *y++ = dl * float(at(q, l) >> shift & 15) - ml;
    }
  });
}

// {f16 d, f16 dmin, 12 bytes of scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles}
void decode_q5_k(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ5_K, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b), min = load_half(b + 2);
    for (int group = 0; group < 8; ++group) {
      const ScaleAndMin s = scale_min_k(b + 4, group);
      const std::byte* fifth = b + 16;
      const std::byte* q = b + 48 + group / 2 * 32;
      const int shift = group % 2 * 4;
      const float dl = d * float(s.scale), ml = min * float(s.min);
      for (int l = 0; l < 32; ++l) *y++ = dl * float((at(q, l) >> shift & 15) + ((at(fifth, l) >> group & 1) << 4)) - ml;
    }
  });
}

// {128 bytes of nibbles, 64 bytes of high bit pairs, 16 × int8 scale, f16 d}: halves of 128, in each four runs of 32.
void decode_q6_k(const std::byte* from, float* to, int64_t n) {
  each_block(Dtype::kQ6_K, from, to, n, [](const std::byte* b, float* y) {
    const float d = load_half(b + 208);
    for (int run = 0; run < 8; ++run) {
      const std::byte* low = b + run / 4 * 64 + run % 2 * 32;
      const std::byte* high = b + 128 + run / 4 * 32;
      const int shift = run % 4 / 2 * 4, high_shift = run % 4 * 2;
      for (int l = 0; l < 32; ++l) {
        const int q = (at(low, l) >> shift & 15) | ((at(high, l) >> high_shift & 3) << 4);
        *y++ = d * float(signed_at(b, 192 + run * 2 + l / 16)) * float(q - 32);
      }
    }
  });
}

void decode_row(Dtype dtype, const std::byte* from, float* to, int64_t n) { format_of(dtype).decode(from, to, n); }

}  // namespace sb
