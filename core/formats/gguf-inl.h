// GGUF's block types for SIMD kernels: each says once how 32 weights in a row come out as signed bytes with their scales.
// weight = d[half] · q + m[half], half 0 for the first 16 weights, half 1 for the others. Layouts as in ggml; formats/decode.cc is the
// scalar definition. The includer brings the vectors: device/cpu/simd.h comes first, and fixes the instruction set's namespace.
#pragma once

#include "tensor/dtype.h"

namespace sb::SB_ISA {

struct GroupScales {
  float d[2];
  float m[2];
};

inline uint16_t u16_at(const uint8_t* p) { return load<uint16_t>(p); }
inline U8x16 bytes_at(const uint8_t* p) { return load<U8x16>(p); }
/// Bit i of the 16 as byte i: 0x10 where it is set.
inline U8x16 fifth_bits(const uint8_t* bits) {
  U8x16 spread = U8x16{} + bits[0];
  U8x16 second = U8x16{} + bits[1];
  spread = __builtin_shufflevector(spread, second, 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31);
  const U8x16 mask = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  return U8x16((spread & mask) == mask) & 0x10;
}

/// A block type: kHasMin says that m is used, kSplit that the halves differ.
template <Dtype>
struct GroupDecoder;

template <>
struct GroupDecoder<Dtype::kQ4_0> {  // f16 d, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g * 18;
    U8x16 q = bytes_at(block + 2);
    low = I8x16(q & 15) - 8;
    high = I8x16(q >> 4) - 8;
    s.d[0] = half_to_f32(u16_at(block));
  }
};

template <>
struct GroupDecoder<Dtype::kQ4_1> {  // f16 d, f16 m, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g * 20;
    U8x16 q = bytes_at(block + 4);
    low = I8x16(q & 15);
    high = I8x16(q >> 4);
    s.d[0] = half_to_f32(u16_at(block));
    s.m[0] = half_to_f32(u16_at(block + 2));
  }
};

template <>
struct GroupDecoder<Dtype::kQ5_0> {  // f16 d, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g * 22;
    U8x16 q = bytes_at(block + 6);
    low = I8x16((q & 15) | fifth_bits(block + 2)) - 16;
    high = I8x16((q >> 4) | fifth_bits(block + 4)) - 16;
    s.d[0] = half_to_f32(u16_at(block));
  }
};

template <>
struct GroupDecoder<Dtype::kQ5_1> {  // f16 d, f16 m, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g * 24;
    U8x16 q = bytes_at(block + 8);
    low = I8x16((q & 15) | fifth_bits(block + 4));
    high = I8x16((q >> 4) | fifth_bits(block + 6));
    s.d[0] = half_to_f32(u16_at(block));
    s.m[0] = half_to_f32(u16_at(block + 2));
  }
};

template <>
struct GroupDecoder<Dtype::kQ8_0> {  // f16 d, 32 × i8
  static constexpr bool kHasMin = false, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g * 34;
    low = load<I8x16>(block + 2);
    high = load<I8x16>(block + 18);
    s.d[0] = half_to_f32(u16_at(block));
  }
};

template <>
struct GroupDecoder<Dtype::kQ2_K> {  // 16 × (4-bit scale, 4-bit min), 64 × four 2-bit, f16 d, f16 dmin
  static constexpr bool kHasMin = true, kSplit = true;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g / 8 * 84;
    const int j = int(g % 8), shift = 2 * (j % 4);
    const uint8_t* q = block + 16 + 32 * (j / 4);
    low = I8x16((bytes_at(q) >> shift) & 3);
    high = I8x16((bytes_at(q + 16) >> shift) & 3);
    const float d = half_to_f32(u16_at(block + 80)), dmin = half_to_f32(u16_at(block + 82));
    for (int h = 0; h < 2; ++h) {
      const uint8_t scale = block[2 * j + h];
      s.d[h] = d * float(scale & 15);
      s.m[h] = -dmin * float(scale >> 4);
    }
  }
};

template <>
struct GroupDecoder<Dtype::kQ3_K> {  // 32 × third bits, 64 × four 2-bit, 16 × 6-bit scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g / 8 * 110;
    const int j = int(g % 8), shift = 2 * (j % 4);
    const uint8_t* q = block + 32 + 32 * (j / 4);
    const uint8_t bit = uint8_t(1 << j);
    const U8x16 missing_low = U8x16((bytes_at(block) & bit) == 0) & 4, missing_high = U8x16((bytes_at(block + 16) & bit) == 0) & 4;
    low = I8x16((bytes_at(q) >> shift) & 3) - I8x16(missing_low);
    high = I8x16((bytes_at(q + 16) >> shift) & 3) - I8x16(missing_high);
    const float d = half_to_f32(u16_at(block + 108));
    for (int h = 0; h < 2; ++h) {
      const int i = 2 * j + h;
      const uint8_t* scales = block + 96;
      const int lower = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4, upper = (scales[8 + i % 4] >> (2 * (i / 4))) & 3;
      s.d[h] = d * float((lower | upper << 4) - 32);
    }
  }
};

/// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit mins into 12 bytes.
inline void k_scale_min(const uint8_t* scales, int j, int& scale, int& min) {
  if (j < 4) {
    scale = scales[j] & 63;
    min = scales[j + 4] & 63;
  } else {
    scale = (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
    min = (scales[j + 4] >> 4) | (scales[j] >> 6) << 4;
  }
}

template <>
struct GroupDecoder<Dtype::kQ4_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g / 8 * 144;
    const int j = int(g % 8), shift = 4 * (j % 2);
    const uint8_t* q = block + 16 + 32 * (j / 2);
    low = I8x16((bytes_at(q) >> shift) & 15);
    high = I8x16((bytes_at(q + 16) >> shift) & 15);
    int scale, min;
    k_scale_min(block + 4, j, scale, min);
    s.d[0] = half_to_f32(u16_at(block)) * float(scale);
    s.m[0] = -half_to_f32(u16_at(block + 2)) * float(min);
  }
};

template <>
struct GroupDecoder<Dtype::kQ5_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 32 × fifth bits, 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g / 8 * 176;
    const int j = int(g % 8), shift = 4 * (j % 2);
    const uint8_t* q = block + 48 + 32 * (j / 2);
    low = I8x16(((bytes_at(q) >> shift) & 15) | (((bytes_at(block + 16) >> j) & 1) << 4));
    high = I8x16(((bytes_at(q + 16) >> shift) & 15) | (((bytes_at(block + 32) >> j) & 1) << 4));
    int scale, min;
    k_scale_min(block + 4, j, scale, min);
    s.d[0] = half_to_f32(u16_at(block)) * float(scale);
    s.m[0] = -half_to_f32(u16_at(block + 2)) * float(min);
  }
};

template <>
struct GroupDecoder<Dtype::kQ6_K> {  // 128 × two nibbles, 64 × four 2-bit, 16 × i8 scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static void decode(const uint8_t* row, int64_t g, I8x16& low, I8x16& high, GroupScales& s) {
    const uint8_t* block = row + g / 8 * 210;
    const int j = int(g % 8), quarter = j % 4;
    const uint8_t *q = block + 64 * (j / 4) + 32 * (quarter % 2), *upper = block + 128 + 32 * (j / 4);
    const int shift = 4 * (quarter / 2), upper_shift = 2 * quarter;
    low = I8x16(((bytes_at(q) >> shift) & 15) | (((bytes_at(upper) >> upper_shift) & 3) << 4)) - 32;
    high = I8x16(((bytes_at(q + 16) >> shift) & 15) | (((bytes_at(upper + 16) >> upper_shift) & 3) << 4)) - 32;
    const float d = half_to_f32(u16_at(block + 208));
    s.d[0] = d * float(int8_t(block[192 + 2 * j]));
    s.d[1] = d * float(int8_t(block[193 + 2 * j]));
  }
};

}  // namespace sb::SB_ISA
