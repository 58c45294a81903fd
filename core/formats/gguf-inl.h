// GGUF's block types for SIMD kernels: each says once how 32 weights in a row come out as bytes, and with which scales.
// weight = d · (code + kLowest) + m; where kSplit, the first 16 weights and the other 16 have scales of their own. Layouts as in ggml;
// formats/decode.cc is the scalar definition. The includer brings the vectors: device/cpu/simd.h comes first, and fixes the instruction
// set's namespace.
#pragma once

#include "tensor/dtype.h"

namespace sb::SB_ISA {

/// Scales come for a chunk of 8 groups of 32 weights: a block of the k types, whose scales are packed together.
inline constexpr int kChunk = 8;

/// d[0] and m[0] of a chunk's groups; of a split type the 16 of each in the order of the weights, over both. m only where kHasMin.
struct ChunkScales {
  F32x8 d[2], m[2];
};

inline uint16_t u16_at(const uint8_t* p) { return load<uint16_t>(p); }
/// 32 bytes from two runs of 16.
inline U8x32 join(U8x16 low, U8x16 high) {
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                                 26, 27, 28, 29, 30, 31);
}
/// Each byte's bits from `shift` on, as many as `mask` has. Shifts run over 16 bits: what comes from the neighbour is above the mask.
inline U8x32 bits_at(U8x32 bytes, int shift, int mask) { return U8x32(U16x16(bytes) >> uint16_t(shift)) & uint8_t(mask); }

/// Codes of a few bits each, n bits up.
inline U8x32 raised(U8x32 codes, int n) { return U8x32(U16x16(codes) << uint16_t(n)); }

/// 16 bytes of two nibbles each: the low ones, then the high ones; as bytes, and as 16-bit lanes.
inline U8x32 nibbles(const uint8_t* p) {
  const U8x16 q = load<U8x16>(p);
  return join(q & 15, q >> 4);
}
inline Group nibble_words(const uint8_t* p) {
#if defined(__AVX512F__)
  const U8x16 q = load<U8x16>(p);
  const U16 both = __builtin_convertvector(join(q, q), U16);
  return {{I16((both >> U16{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4}) & 15)}};
#else
  Group g;
  for (int i = 0; i < Group::kVectors / 2; ++i) {
    const U16 both = __builtin_convertvector(load<U8words>(p + i * 2 * kLanes), U16);  // a load that widens
    g.v[i] = I16(both & 15);
    g.v[Group::kVectors / 2 + i] = I16(both >> 4);
  }
  return g;
#endif
}
/// Bit i of the 32 as byte i: 0x10 where it is set.
inline U8x32 fifth_bits(const uint8_t* bits) {
  typedef uint32_t U32x8 __attribute__((vector_size(32)));
  const U8x32 all = U8x32(U32x8{} + load<uint32_t>(bits));
  const U8x32 spread = __builtin_shufflevector(all, all, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 18, 18, 18, 18, 18, 18, 18, 18, 19,
                                               19, 19, 19, 19, 19, 19, 19);
  constexpr uint64_t kEach = 0x8040201008040201;
  typedef uint64_t U64x4 __attribute__((vector_size(32)));
  const U8x32 mask = U8x32(U64x4{kEach, kEach, kEach, kEach});
  return U8x32((spread & mask) == mask) & 0x10;
}

/// nibble_words() of Q5_0 and Q5_1, which keep the fifth bits apart.
inline Group five_bit_words(const uint8_t* bits, const uint8_t* low) {
#if defined(__AVX512F__)
  return widen(nibbles(low) | fifth_bits(bits));  // in order there
#else
  const U16 mask = []<int... kI>(std::integer_sequence<int, kI...>) {
    return U16{uint16_t(1 << kI)...};
  }(std::make_integer_sequence<int, 2 * kLanes>());
  Group g = nibble_words(low);
  for (int i = 0; i < Group::kVectors; ++i) {
    const U16 here = U16{} + uint16_t(kLanes == 8 ? load<uint16_t>(bits + 2 * i) : bits[i]);
    g.v[i] |= I16((here & mask) == mask) & 16;
  }
  return g;
#endif
}

/// Two halves in each 32 bits, as floats.
struct Heads {
  F32x8 first, second;
};
inline Heads halves_to_f32(I32x8 v) {
#if defined(__F16C__)
  // Not by a product as below: a subnormal among its operands can cost more than all the rest.
  const F32x8 low = F32x8(_mm256_cvtph_ps(_mm256_castsi256_si128(__m256i(v)))),
              high = F32x8(_mm256_cvtph_ps(_mm256_extracti128_si256(__m256i(v), 1)));
  return {__builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14), __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15)};
#else
  // An arithmetic shift keeps the sign where it belongs; the exponent's bias moves by a product, which also makes subnormals right.
  auto upper = [](I32x8 h) { return F32x8((h >> 3) & int32_t(0x8fffe000)) * 0x1p112f; };
  return {upper(v << 16), upper(v)};
#endif
}
/// A block type. codes(): the 32 weights of group g of a row as bytes, 0 … kHighest − kLowest. Types whose block is a group have words(),
/// the same in 16-bit lanes (kSignedWords: with their sign), and scales() from the first 32 bits of eight blocks; k types have scales() of
/// a block, which is a chunk.
template <Dtype>
struct GroupDecoder;

template <>
struct GroupDecoder<Dtype::kQ4_0> {  // f16 d, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -8, kHighest = 7;
  static U8x32 codes(const uint8_t* row, int64_t g) { return nibbles(row + g * 18 + 2); }
  static Group words(const uint8_t* row, int64_t g) { return nibble_words(row + g * 18 + 2); }
  static void scales(I32x8 heads, ChunkScales& s) { s.d[0] = halves_to_f32(heads).first; }
};

template <>
struct GroupDecoder<Dtype::kQ4_1> {  // f16 d, f16 m, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 15;
  static U8x32 codes(const uint8_t* row, int64_t g) { return nibbles(row + g * 20 + 4); }
  static Group words(const uint8_t* row, int64_t g) { return nibble_words(row + g * 20 + 4); }
  static void scales(I32x8 heads, ChunkScales& s) {
    const Heads both = halves_to_f32(heads);
    s.d[0] = both.first;
    s.m[0] = both.second;
  }
};

template <>
struct GroupDecoder<Dtype::kQ5_0> {  // f16 d, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -16, kHighest = 15;
  static U8x32 codes(const uint8_t* row, int64_t g) { return nibbles(row + g * 22 + 6) | fifth_bits(row + g * 22 + 2); }
  static Group words(const uint8_t* row, int64_t g) { return five_bit_words(row + g * 22 + 2, row + g * 22 + 6); }
  static void scales(I32x8 heads, ChunkScales& s) { s.d[0] = halves_to_f32(heads).first; }
};

template <>
struct GroupDecoder<Dtype::kQ5_1> {  // f16 d, f16 m, 32 fifth bits, 16 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 31;
  static U8x32 codes(const uint8_t* row, int64_t g) { return nibbles(row + g * 24 + 8) | fifth_bits(row + g * 24 + 4); }
  static Group words(const uint8_t* row, int64_t g) { return five_bit_words(row + g * 24 + 4, row + g * 24 + 8); }
  static void scales(I32x8 heads, ChunkScales& s) {
    const Heads both = halves_to_f32(heads);
    s.d[0] = both.first;
    s.m[0] = both.second;
  }
};

template <>
struct GroupDecoder<Dtype::kQ8_0> {  // f16 d, 32 × i8
  static constexpr bool kHasMin = false, kSplit = false;
  static constexpr int kLowest = -128, kHighest = 127;
  static U8x32 codes(const uint8_t* row, int64_t g) { return load<U8x32>(row + g * 34 + 2) ^ 0x80; }
  static constexpr bool kSignedWords = true;
  static Group words(const uint8_t* row, int64_t g) {
    Group w;
    for (int i = 0; i < Group::kVectors; ++i) w.v[i] = __builtin_convertvector(load<I8words>(row + g * 34 + 2 + i * 2 * kLanes), I16);
    return w;
  }
  static void scales(I32x8 heads, ChunkScales& s) { s.d[0] = halves_to_f32(heads).first; }
};

template <>
struct GroupDecoder<Dtype::kQ2_K> {  // 16 × (4-bit scale, 4-bit min), 64 × four 2-bit, f16 d, f16 dmin
  static constexpr bool kHasMin = true, kSplit = true;
  static constexpr int kLowest = 0, kHighest = 3;
  static U8x32 codes(const uint8_t* row, int64_t g) {
    const int j = int(g % 8);
    return bits_at(load<U8x32>(row + g / 8 * 84 + 16 + 32 * (j / 4)), 2 * (j % 4), 3);
  }
  static void scales(const uint8_t* block, ChunkScales& s) {
    const float d = half_to_f32(u16_at(block + 80)), dmin = half_to_f32(u16_at(block + 82));
    constexpr uint64_t kLow = 0x0f0f0f0f0f0f0f0f;
    for (int i = 0; i < 2; ++i) {
      const uint64_t packed = load<uint64_t>(block + 8 * i);
      s.d[i] = bytes_to_f32(packed & kLow) * d;
      s.m[i] = bytes_to_f32((packed >> 4) & kLow) * -dmin;
    }
  }
};

template <>
struct GroupDecoder<Dtype::kQ3_K> {  // 32 × third bits, 64 × four 2-bit, 16 × 6-bit scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static constexpr int kLowest = -4, kHighest = 3;
  static U8x32 codes(const uint8_t* row, int64_t g) {
    const uint8_t* block = row + g / 8 * 110;
    const int j = int(g % 8);
    return bits_at(load<U8x32>(block + 32 + 32 * (j / 4)), 2 * (j % 4), 3) | raised(bits_at(load<U8x32>(block), j, 1), 2);
  }
  static void scales(const uint8_t* block, ChunkScales& s) {
    const uint8_t* packed = block + 96;
    const float d = half_to_f32(u16_at(block + 108));
    const uint64_t lower = load<uint64_t>(packed), upper = load<uint32_t>(packed + 8);
    constexpr uint64_t kLow = 0x0f0f0f0f0f0f0f0f, kTwo = 0x0303030303030303;
    for (int i = 0; i < 2; ++i) {
      const uint64_t high = ((upper >> (4 * i)) | (upper >> (4 * i + 2)) << 32) & kTwo;
      s.d[i] = (bytes_to_f32(((lower >> (4 * i)) & kLow) | high << 4) - 32.0f) * d;
    }
  }
};

/// d and m of Q4_K and Q5_K: a block holds f16 d, f16 dmin, and eight 6-bit scales and eight 6-bit mins in 12 bytes.
inline void k_scales(const uint8_t* block, ChunkScales& s) {
  const uint32_t first = load<uint32_t>(block + 4), second = load<uint32_t>(block + 8), third = load<uint32_t>(block + 12);
  constexpr uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kTwo = 0x03030303;
  const uint64_t scales = (first & kSix) | uint64_t((third & kFour) | ((first >> 6) & kTwo) << 4) << 32;
  const uint64_t mins = (second & kSix) | uint64_t(((third >> 4) & kFour) | ((second >> 6) & kTwo) << 4) << 32;
  s.d[0] = bytes_to_f32(scales) * half_to_f32(u16_at(block));
  s.m[0] = bytes_to_f32(mins) * -half_to_f32(u16_at(block + 2));
}

template <>
struct GroupDecoder<Dtype::kQ4_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 15;
  static U8x32 codes(const uint8_t* row, int64_t g) {
    const int j = int(g % 8);
    return bits_at(load<U8x32>(row + g / 8 * 144 + 16 + 32 * (j / 2)), 4 * (j % 2), 15);
  }
  static void scales(const uint8_t* block, ChunkScales& s) { k_scales(block, s); }
};

template <>
struct GroupDecoder<Dtype::kQ5_K> {  // f16 d, f16 dmin, 8 × (6-bit scale, 6-bit min), 32 × fifth bits, 128 × two nibbles
  static constexpr bool kHasMin = true, kSplit = false;
  static constexpr int kLowest = 0, kHighest = 31;
  static U8x32 codes(const uint8_t* row, int64_t g) {
    const uint8_t* block = row + g / 8 * 176;
    const int j = int(g % 8);
    return bits_at(load<U8x32>(block + 48 + 32 * (j / 2)), 4 * (j % 2), 15) | raised(bits_at(load<U8x32>(block + 16), j, 1), 4);
  }
  static void scales(const uint8_t* block, ChunkScales& s) { k_scales(block, s); }
};

template <>
struct GroupDecoder<Dtype::kQ6_K> {  // 128 × two nibbles, 64 × four 2-bit, 16 × i8 scales, f16 d
  static constexpr bool kHasMin = false, kSplit = true;
  static constexpr int kLowest = -32, kHighest = 31;
  static U8x32 codes(const uint8_t* row, int64_t g) {
    const uint8_t* block = row + g / 8 * 210;
    const int j = int(g % 8), quarter = j % 4;
    return bits_at(load<U8x32>(block + 64 * (j / 4) + 32 * (quarter % 2)), 4 * (quarter / 2), 15) |
           raised(bits_at(load<U8x32>(block + 128 + 32 * (j / 4)), 2 * quarter, 3), 4);
  }
  static void scales(const uint8_t* block, ChunkScales& s) {
    const float d = half_to_f32(u16_at(block + 208));
    for (int i = 0; i < 2; ++i) s.d[i] = signed_bytes_to_f32(load<uint64_t>(block + 192 + 8 * i)) * d;
  }
};

template <Dtype D>
inline constexpr bool kIsBlockGroup = dtype_row(D).block == 32;

/// Scales of groups g … g + n − 1, n ≤ 8; of a k type g is a block's first and n is 8. Behind the last group they are 0.
template <Dtype D>
inline void chunk_scales(const uint8_t* row, int64_t g, int n, ChunkScales& s) {
  const uint8_t* blocks = row + g * 32 / dtype_row(D).block * dtype_row(D).bytes_per_block;
  if constexpr (kIsBlockGroup<D>) {
    I32x8 heads{};
    for (int i = 0; i < n; ++i) heads[i] = load<int32_t>(blocks + i * dtype_row(D).bytes_per_block);
    GroupDecoder<D>::scales(heads, s);
  } else {
    GroupDecoder<D>::scales(blocks, s);
  }
}

/// What is added to d · code, so that codes need no sign: of scales d[part].
template <Dtype D>
inline F32x8 offsets(const ChunkScales& s, int part) {
  using Decoder = GroupDecoder<D>;
  static_assert(!Decoder::kHasMin || Decoder::kLowest == 0);
  if constexpr (Decoder::kHasMin) return s.m[part];
  return s.d[part] * float(Decoder::kLowest);
}

/// 32 weights as 16-bit lanes: of a k type in kWidenedOrder.
template <Dtype D>
inline Group words(const uint8_t* row, int64_t g) {
  if constexpr (kIsBlockGroup<D>) {
    return GroupDecoder<D>::words(row, g);
  } else {
    return widen(GroupDecoder<D>::codes(row, g));
  }
}
template <Dtype D>
constexpr bool words_are_signed() {
  return requires { GroupDecoder<D>::kSignedWords; };
}

}  // namespace sb::SB_ISA
