// GGUF's block types for SIMD kernels: each says once how 32 weights in a row come out as signed bytes, and with which scales.
// weight = d · q + m; where kSplit, the first 16 weights and the other 16 have scales of their own. Layouts as in ggml; formats/decode.cc
// is the scalar definition. The includer brings the vectors: device/cpu/simd.h comes first, and fixes the instruction set's namespace.
#pragma once

#include "tensor/dtype.h"

namespace sb::SB_ISA {

/// Scales of a split type: of the first 16 weights, of the others.
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

/// A block type. codes(): the 32 weights' bytes. kHasMin says that m is used. Types whose halves differ (kSplit) have scales(), the others
/// pair(): d and m in lanes 0 and 1, in one vector so that both are converted and multiplied at once. Codes are kLowest … kHighest.
template <Dtype>
struct GroupDecoder;

template <>
struct GroupDecoder<Dtype::kQ4_0> {  // f16 d, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -8, kHighest = 7;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g * 18;
    U8x16 q = bytes_at(block + 2);
    low = I8x16(q & 15) - 8;
    high = I8x16(q >> 4) - 8;
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return half_pair(row + g * 18); }
};

template <>
struct GroupDecoder<Dtype::kQ4_1> {  // f16 d, f16 m, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 15;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g * 20;
    U8x16 q = bytes_at(block + 4);
    low = I8x16(q & 15);
    high = I8x16(q >> 4);
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return half_pair(row + g * 20); }
};

template <>
struct GroupDecoder<Dtype::kQ5_0> {  // f16 d, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -16, kHighest = 15;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g * 22;
    U8x16 q = bytes_at(block + 6);
    low = I8x16((q & 15) | fifth_bits(block + 2)) - 16;
    high = I8x16((q >> 4) | fifth_bits(block + 4)) - 16;
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return half_pair(row + g * 22); }
};

template <>
struct GroupDecoder<Dtype::kQ5_1> {  // f16 d, f16 m, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 31;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g * 24;
    U8x16 q = bytes_at(block + 8);
    low = I8x16((q & 15) | fifth_bits(block + 4));
    high = I8x16((q >> 4) | fifth_bits(block + 6));
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return half_pair(row + g * 24); }
};

template <>
struct GroupDecoder<Dtype::kQ8_0> {  // f16 d, 32 × i8
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -128, kHighest = 127;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g * 34;
    low = load<I8x16>(block + 2);
    high = load<I8x16>(block + 18);
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return half_pair(row + g * 34); }
};

template <>
struct GroupDecoder<Dtype::kQ2_K> {  // 16 × (4-bit scale, 4-bit min), 64 × four 2-bit, f16 d, f16 dmin
  static constexpr bool kHasMin = true, kSplit = true;
  static constexpr int kLowest = 0, kHighest = 3;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g / 8 * 84;
    const int j = int(g % 8), shift = 2 * (j % 4);
    const uint8_t* q = block + 16 + 32 * (j / 4);
    low = I8x16((bytes_at(q) >> shift) & 3);
    high = I8x16((bytes_at(q + 16) >> shift) & 3);
  }
  static GroupScales scales(const uint8_t* row, int64_t g) {
    const uint8_t* block = row + g / 8 * 84;
    const uint8_t first = block[2 * (g % 8)], second = block[2 * (g % 8) + 1];
    const float d = half_to_f32(u16_at(block + 80)), dmin = half_to_f32(u16_at(block + 82));
    return {{d * float(first & 15), d * float(second & 15)}, {-dmin * float(first >> 4), -dmin * float(second >> 4)}};
  }
};

template <>
struct GroupDecoder<Dtype::kQ3_K> {  // 32 × third bits, 64 × four 2-bit, 16 × 6-bit scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static constexpr int kLowest = -4, kHighest = 3;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g / 8 * 110;
    const int j = int(g % 8), shift = 2 * (j % 4);
    const uint8_t* q = block + 32 + 32 * (j / 4);
    const uint8_t bit = uint8_t(1 << j);
    const U8x16 missing_low = U8x16((bytes_at(block) & bit) == 0) & 4, missing_high = U8x16((bytes_at(block + 16) & bit) == 0) & 4;
    low = I8x16((bytes_at(q) >> shift) & 3) - I8x16(missing_low);
    high = I8x16((bytes_at(q + 16) >> shift) & 3) - I8x16(missing_high);
  }
  static GroupScales scales(const uint8_t* row, int64_t g) {
    const uint8_t *block = row + g / 8 * 110, *packed = block + 96;
    const float d = half_to_f32(u16_at(block + 108));
    GroupScales s{};
    for (int h = 0; h < 2; ++h) {
      const int i = 2 * int(g % 8) + h;
      const int lower = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4, upper = (packed[8 + i % 4] >> (2 * (i / 4))) & 3;
      s.d[h] = d * float((lower | upper << 4) - 32);
    }
    return s;
  }
};

/// d and m of 32 weights of Q4_K and Q5_K: a block holds f16 d, f16 dmin, and eight 6-bit scales and eight 6-bit mins in 12 bytes.
inline F32x4 k_pair(const uint8_t* block, int j) {
  const uint8_t* packed = block + 4;
  int scale, min;
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
  return half_pair(block) * F32x4{float(scale), -float(min), 0, 0};
}

template <>
struct GroupDecoder<Dtype::kQ4_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 15;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g / 8 * 144;
    const int j = int(g % 8), shift = 4 * (j % 2);
    const uint8_t* q = block + 16 + 32 * (j / 2);
    low = I8x16((bytes_at(q) >> shift) & 15);
    high = I8x16((bytes_at(q + 16) >> shift) & 15);
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return k_pair(row + g / 8 * 144, int(g % 8)); }
};

template <>
struct GroupDecoder<Dtype::kQ5_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 32 × fifth bits, 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 31;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g / 8 * 176;
    const int j = int(g % 8), shift = 4 * (j % 2);
    const uint8_t* q = block + 48 + 32 * (j / 2);
    low = I8x16(((bytes_at(q) >> shift) & 15) | (((bytes_at(block + 16) >> j) & 1) << 4));
    high = I8x16(((bytes_at(q + 16) >> shift) & 15) | (((bytes_at(block + 32) >> j) & 1) << 4));
  }
  static F32x4 pair(const uint8_t* row, int64_t g) { return k_pair(row + g / 8 * 176, int(g % 8)); }
};

template <>
struct GroupDecoder<Dtype::kQ6_K> {  // 128 × two nibbles, 64 × four 2-bit, 16 × i8 scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static constexpr int kLowest = -32, kHighest = 31;
  static void codes(const uint8_t* row, int64_t g, I8x16& low, I8x16& high) {
    const uint8_t* block = row + g / 8 * 210;
    const int j = int(g % 8), quarter = j % 4;
    const uint8_t *q = block + 64 * (j / 4) + 32 * (quarter % 2), *upper = block + 128 + 32 * (j / 4);
    const int shift = 4 * (quarter / 2), upper_shift = 2 * quarter;
    low = I8x16(((bytes_at(q) >> shift) & 15) | (((bytes_at(upper) >> upper_shift) & 3) << 4)) - 32;
    high = I8x16(((bytes_at(q + 16) >> shift) & 15) | (((bytes_at(upper + 16) >> upper_shift) & 3) << 4)) - 32;
  }
  static GroupScales scales(const uint8_t* row, int64_t g) {
    const uint8_t *block = row + g / 8 * 210, *scale = block + 192 + 2 * (g % 8);
    const float d = half_to_f32(u16_at(block + 208));
    return {{d * float(int8_t(scale[0])), d * float(int8_t(scale[1]))}, {}};
  }
};

}  // namespace sb::SB_ISA
