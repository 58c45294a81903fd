// The one SIMD door. A kernel file is compiled once per instruction set with SB_ISA as its namespace (see CMakeLists.txt); this header
// gives it vectors of that set's width: compiler vector types, and an intrinsic only where the compiler finds no good code by itself.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#elif defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef SB_ISA
#error "compile kernels with -DSB_ISA=<name>"
#endif

namespace sb::SB_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;  // float32 lanes of a vector
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif
// Vector registers bound the tile of the many-token matmul: AVX-512 has 32, everything else at least 16.
inline constexpr int kTileTokens = kLanes == 16 ? 6 : 3;

typedef float F32 __attribute__((vector_size(4 * kLanes)));
typedef int32_t I32 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t U32 __attribute__((vector_size(4 * kLanes)));
typedef int16_t I16 __attribute__((vector_size(4 * kLanes)));       // 2 · kLanes
typedef uint16_t U16half __attribute__((vector_size(2 * kLanes)));  // kLanes
typedef uint16_t U16 __attribute__((vector_size(4 * kLanes)));      // 2 · kLanes
typedef uint8_t U8 __attribute__((vector_size(4 * kLanes)));        // 4 · kLanes
typedef int8_t I8 __attribute__((vector_size(4 * kLanes)));         // 4 · kLanes
typedef int8_t I8words __attribute__((vector_size(2 * kLanes)));    // 2 · kLanes
typedef uint8_t U8words __attribute__((vector_size(2 * kLanes)));   // 2 · kLanes
typedef int8_t I8lanes __attribute__((vector_size(kLanes)));        // kLanes
typedef uint8_t U8lanes __attribute__((vector_size(kLanes)));       // kLanes
typedef int8_t I8x16 __attribute__((vector_size(16)));
typedef uint8_t U8x16 __attribute__((vector_size(16)));
typedef float F32x4 __attribute__((vector_size(16)));
// Of one size everywhere: 32 weights' codes, 8 groups' scales.
typedef uint8_t U8x32 __attribute__((vector_size(32)));
typedef uint16_t U16x16 __attribute__((vector_size(32)));
typedef int32_t I32x8 __attribute__((vector_size(32)));
typedef float F32x8 __attribute__((vector_size(32)));

template <class V>
inline V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
inline void store(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

/// Not F32{} + x: an addition of zero is not nothing (−0), so it would stay in the loop.
inline F32 splat(float x) {
  return [x]<int... kI>(std::integer_sequence<int, kI...>) { return F32{((void)kI, x)...}; }(std::make_integer_sequence<int, kLanes>());
}
inline F32 to_f32(I32 v) { return __builtin_convertvector(v, F32); }

/// 1.5·2^23: added to a number below 2^22 it pushes the fraction out, and the nearest integer stays in the low bits.
inline constexpr float kToNearest = 12582912.0f;

/// a · b + c; fused where the hardware has it.
inline F32 mul_add(F32 a, F32 b, F32 c) {
#if defined(__wasm_relaxed_simd__)
  return F32(wasm_f32x4_relaxed_madd(v128_t(a), v128_t(b), v128_t(c)));
#elif defined(__FMA__) || defined(__ARM_NEON)
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Not __builtin_elementwise_min: that must say something about NaN, which costs two more instructions. A choice is one.
inline F32 max(F32 a, F32 b) { return a > b ? a : b; }
inline F32 min(F32 a, F32 b) { return a < b ? a : b; }
inline F32 abs(F32 a) { return __builtin_elementwise_abs(a); }

/// Halves onto halves until four lanes are left: the same order of additions for a width on every machine.
inline F32x4 folded(F32 v) {
#if defined(__AVX512F__)
  const F32x8 v8 = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
  const F32x8 v8 = v;
#endif
#if defined(__AVX2__)
  return __builtin_shufflevector(v8, v8, 0, 1, 2, 3) + __builtin_shufflevector(v8, v8, 4, 5, 6, 7);
#else
  return v;
#endif
}
inline float sum_of_four(F32x4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline float sum(F32 v) { return sum_of_four(folded(v)); }
/// {sum(a), sum(b), sum(c), sum(d)}
inline F32x4 sum_each(F32 a, F32 b, F32 c, F32 d) {
  const F32x4 v[4] = {folded(a), folded(b), folded(c), folded(d)};
  const F32x4 ab = __builtin_shufflevector(v[0], v[1], 0, 1, 4, 5) + __builtin_shufflevector(v[0], v[1], 2, 3, 6, 7),
              cd = __builtin_shufflevector(v[2], v[3], 0, 1, 4, 5) + __builtin_shufflevector(v[2], v[3], 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}
inline float sum_of_eight(F32x8 v) {
  return sum_of_four(__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7));
}
inline float highest(F32 v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = m > v[i] ? m : v[i];
  return m;
}

/// The largest of 32 magnitudes, and whether all are numbers below infinity.
struct Largest {
  float top;
  bool is_finite;
};
inline Largest largest_of_32(const float* from) {
  F32 largest{}, total{};
  for (int j = 0; j < 32; j += kLanes) {
    const F32 v = abs(load<F32>(from + j));
    largest = max(largest, v);
    total += v;
  }
  return {highest(largest), sum(total) <= std::numeric_limits<float>::max()};
}

/// acc[i] + a[2i]·b[2i] + a[2i+1]·b[2i+1], in 32 bits.
inline I32 dot(I16 a, I16 b, I32 acc) {
#if defined(__wasm_simd128__)
  return acc + I32(wasm_i32x4_dot_i16x8(v128_t(a), v128_t(b)));
#elif defined(__AVX512VNNI__)
  return I32(_mm512_dpwssd_epi32(__m512i(acc), __m512i(a), __m512i(b)));
#elif defined(__AVX512BW__)
  return acc + I32(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
  return acc + I32(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__)
  return acc + I32(_mm_madd_epi16(__m128i(a), __m128i(b)));
#elif defined(__ARM_NEON)
  int32x4_t low = vmull_s16(vget_low_s16(int16x8_t(a)), vget_low_s16(int16x8_t(b)));
  int32x4_t high = vmull_high_s16(int16x8_t(a), int16x8_t(b));
  return acc + I32(vpaddq_s32(low, high));
#endif
}

/// In each 16 bytes: table[index[i]]. Indices are 0 … 15.
inline U8 lookup(U8 table, U8 index) {
#if defined(__wasm_relaxed_simd__)
  return U8(wasm_i8x16_relaxed_swizzle(v128_t(table), v128_t(index)));
#elif defined(__wasm_simd128__)
  return U8(wasm_i8x16_swizzle(v128_t(table), v128_t(index)));
#elif defined(__AVX512BW__)
  return U8(_mm512_shuffle_epi8(__m512i(table), __m512i(index)));
#elif defined(__AVX2__)
  return U8(_mm256_shuffle_epi8(__m256i(table), __m256i(index)));
#elif defined(__SSSE3__)
  return U8(_mm_shuffle_epi8(__m128i(table), __m128i(index)));
#elif defined(__ARM_NEON)
  return U8(vqtbl1q_u8(uint8x16_t(table), uint8x16_t(index)));
#endif
}

// Products of bytes, w without a sign and x in −127 … 127, four to a 32-bit lane. ByteSums are what an instruction set adds up best;
// wide_sums() makes 32-bit lanes of them. Where kDotsAreWide, any number of products of 8 bits fits; elsewhere pairs of them add up in
// 16-bit lanes, and the caller sees that they fit.
#if defined(__AVX512VNNI__)
inline constexpr bool kDotsAreWide = true;
typedef I32 ByteSums;
inline ByteSums dot_bytes(U8 w, I8 x, ByteSums sums) { return I32(_mm512_dpbusd_epi32(__m512i(sums), __m512i(w), __m512i(x))); }
inline I32 wide_sums(ByteSums sums) { return sums; }
#elif defined(__wasm_simd128__) && !defined(__wasm_relaxed_simd__)
inline constexpr bool kDotsAreWide = true;
struct ByteSums {
  I32 first, second;  // of the vector's halves: two sums of two products a lane of the result
};
inline ByteSums dot_bytes(U8 w, I8 x, ByteSums sums) {
  return {sums.first + I32(wasm_i32x4_dot_i16x8(wasm_u16x8_extend_low_u8x16(v128_t(w)), wasm_i16x8_extend_low_i8x16(v128_t(x)))),
          sums.second + I32(wasm_i32x4_dot_i16x8(wasm_u16x8_extend_high_u8x16(v128_t(w)), wasm_i16x8_extend_high_i8x16(v128_t(x))))};
}
inline I32 wide_sums(const ByteSums& sums) {
  return __builtin_shufflevector(sums.first, sums.second, 0, 2, 4, 6) + __builtin_shufflevector(sums.first, sums.second, 1, 3, 5, 7);
}
#else
inline constexpr bool kDotsAreWide = false;
typedef I16 ByteSums;
inline ByteSums dot_bytes(U8 w, I8 x, ByteSums sums) {
#if defined(__wasm_relaxed_simd__)
  return sums + I16(wasm_i16x8_relaxed_dot_i8x16_i7x16(v128_t(x), v128_t(w)));
#elif defined(__AVX2__)
  return sums + I16(_mm256_maddubs_epi16(__m256i(w), __m256i(x)));
#elif defined(__SSSE3__)
  return sums + I16(_mm_maddubs_epi16(__m128i(w), __m128i(x)));
#elif defined(__ARM_NEON)
  const int8x16_t a = int8x16_t(w), b = int8x16_t(x);  // w has at most seven bits
  return sums + I16(vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)));
#endif
}
inline I32 wide_sums(ByteSums sums) {
#if defined(__wasm_relaxed_simd__)
  return I32(wasm_i32x4_extadd_pairwise_i16x8(v128_t(sums)));
#elif defined(__AVX2__)
  return I32(_mm256_madd_epi16(__m256i(sums), _mm256_set1_epi16(1)));
#elif defined(__SSSE3__)
  return I32(_mm_madd_epi16(__m128i(sums), _mm_set1_epi16(1)));
#elif defined(__ARM_NEON)
  return I32(vpaddlq_s16(int16x8_t(sums)));
#endif
}
#endif

inline U8x16 half_of(U8x32 v, int half) {
  return half ? __builtin_shufflevector(v, v, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31)
              : __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/// 32 numbers as 16-bit lanes.
struct Group {
  static constexpr int kVectors = 32 / (2 * kLanes);
  I16 v[kVectors];
};
/// 32 bytes without a sign as 16-bit lanes, eights of them in the order kWidenedOrder: AVX2 is quickest when it interleaves with zeros, and
/// a vector's lower half is then of the first 16 and its upper half of the others.
inline constexpr int kWidenedOrder[4] = {0, kLanes == 8 ? 2 : 1, kLanes == 8 ? 1 : 2, 3};
inline Group widen(U8x32 bytes) {
  Group g;
#if defined(__AVX512F__)
  g.v[0] = I16(__builtin_convertvector(bytes, U16));
#elif defined(__AVX2__)
  g.v[0] = I16(_mm256_unpacklo_epi8(__m256i(bytes), _mm256_setzero_si256()));
  g.v[1] = I16(_mm256_unpackhi_epi8(__m256i(bytes), _mm256_setzero_si256()));
#elif defined(__wasm_simd128__)
  const U8x16 half[2] = {half_of(bytes, 0), half_of(bytes, 1)};
  for (int i = 0; i < 2; ++i) {
    g.v[2 * i] = I16(wasm_u16x8_extend_low_u8x16(v128_t(half[i])));
    g.v[2 * i + 1] = I16(wasm_u16x8_extend_high_u8x16(v128_t(half[i])));
  }
#else
  g.v[0] = I16(__builtin_convertvector(__builtin_shufflevector(bytes, bytes, 0, 1, 2, 3, 4, 5, 6, 7), U16));
  g.v[1] = I16(__builtin_convertvector(__builtin_shufflevector(bytes, bytes, 8, 9, 10, 11, 12, 13, 14, 15), U16));
  g.v[2] = I16(__builtin_convertvector(__builtin_shufflevector(bytes, bytes, 16, 17, 18, 19, 20, 21, 22, 23), U16));
  g.v[3] = I16(__builtin_convertvector(__builtin_shufflevector(bytes, bytes, 24, 25, 26, 27, 28, 29, 30, 31), U16));
#endif
  return g;
}

/// 8 bytes as floats.
inline F32x8 bytes_to_f32(uint64_t bytes) {
#if defined(__wasm_simd128__)
  const v128_t words = wasm_u16x8_extend_low_u8x16(wasm_i64x2_splat(int64_t(bytes)));
  const F32x4 low = F32x4(wasm_f32x4_convert_i32x4(wasm_u32x4_extend_low_u16x8(words))),
              high = F32x4(wasm_f32x4_convert_i32x4(wasm_u32x4_extend_high_u16x8(words)));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
#else
  typedef uint8_t U8x8 __attribute__((vector_size(8)));
  return __builtin_convertvector(__builtin_convertvector(__builtin_bit_cast(U8x8, bytes), I32x8), F32x8);
#endif
}
/// The same of bytes with a sign.
inline F32x8 signed_bytes_to_f32(uint64_t bytes) { return bytes_to_f32(bytes ^ 0x8080808080808080) - 128.0f; }

/// 16 signed bytes as float vectors, scaled and shifted, to memory: to[i] = q[i] · d + m.
inline void scale_to_f32(I8x16 q, F32 d, F32 m, float* to) {
  alignas(16) int8_t bytes[16];
  store(bytes, q);
  for (int i = 0; i < 16; i += kLanes) {
    F32 f = __builtin_convertvector(load<I8lanes>(bytes + i), F32);
    store(to + i, mul_add(f, d, m));
  }
}

#if defined(__F16C__)
inline constexpr bool kConvertsHalves = true;  // in an instruction
#else
inline constexpr bool kConvertsHalves = false;
#endif
inline float half_to_f32(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  // The exponent's bias moves by a multiplication, which also makes subnormals right. Weights and caches hold no infinities.
  uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
  float f = __builtin_bit_cast(float, magnitude) * 0x1p112f;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, f) | uint32_t(h & 0x8000) << 16);
#endif
}

/// The half at `from` as a float in every lane. Reads 8 bytes.
inline F32 splat_half(const void* from) {
#if defined(__F16C__)
  const F32x4 v = F32x4(_mm_cvtph_ps(_mm_loadl_epi64(static_cast<const __m128i*>(from))));
  return [v]<int... kI>(std::integer_sequence<int, kI...>) {
    return __builtin_shufflevector(v, v, (kI * 0)...);
  }(std::make_integer_sequence<int, kLanes>());
#else
  return splat(half_to_f32(load<uint16_t>(from)));
#endif
}

/// Asks for the cache line at `p`, a readable address. WebAssembly has no such instruction; there a load does, whose value nobody waits
/// for.
inline void prefetch(const void* p) {
#if defined(__wasm__)
  static_cast<void>(*static_cast<const volatile uint8_t*>(p));
#else
  __builtin_prefetch(p, 0, 3);
#endif
}

/// Asks for n bytes at p, which need not be readable; nothing in WebAssembly, where a load would wait for what it asks for.
inline void ask_for([[maybe_unused]] const void* p, [[maybe_unused]] int64_t n_bytes) {
#if !defined(__wasm__)
  for (int64_t line = 0; line < n_bytes; line += 64) prefetch(static_cast<const std::byte*>(p) + line);
#endif
}

/// from[0] in the first half of the lanes, from[1] in the second.
inline F32 halves(const float* from) {
  typedef float F32x2 __attribute__((vector_size(8)));
  const F32x2 v = load<F32x2>(from);
  return [v]<int... kI>(std::integer_sequence<int, kI...>) {
    return __builtin_shufflevector(v, v, (kI >= kLanes / 2)...);
  }(std::make_integer_sequence<int, kLanes>());
}

/// kLanes halves at `from` as floats.
inline F32 load_half(const void* from) {
  U16half h = load<U16half>(from);
#if defined(__AVX512F__)
  return F32(_mm512_cvtph_ps(__m256i(h)));
#elif defined(__F16C__)
  return F32(_mm256_cvtph_ps(__m128i(h)));
#else
  // An arithmetic shift keeps the sign where it belongs, as half_to_f32 does by a mask of its own.
  typedef int16_t I16half __attribute__((vector_size(2 * kLanes)));
  return F32((__builtin_convertvector(I16half(h), I32) << 13) & int32_t(0x8fffe000)) * 0x1p112f;
#endif
}
/// Floats to halves, nearest with ties to even; beyond ±65504 they stop there.
inline void store_half(void* to, F32 v) {
#if defined(__AVX512F__)
  store(to, _mm512_cvtps_ph(__m512(max(min(v, splat(65504)), splat(-65504))), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  store(to, _mm256_cvtps_ph(__m256(max(min(v, splat(65504)), splat(-65504))), _MM_FROUND_TO_NEAREST_INT));
#else
  U32 bits = U32(v), sign = (bits >> 16) & 0x8000;
  F32 magnitude = min(abs(v), splat(65504));
  U32 u = U32(magnitude);
  U32 normal = (u + 0xfff + ((u >> 13) & 1) - (112u << 23)) >> 13;
  // Adding 0.5 lines the bits of a subnormal half up at the bottom of the float's mantissa, rounded by the adder.
  U32 subnormal = U32(magnitude + 0.5f) - 0x3f000000u;
  U32 is_small = U32(magnitude < 0x1p-14f);
  U32 half = (subnormal & is_small) | (normal & ~is_small);
  store(to, __builtin_convertvector(half | sign, U16half));
#endif
}
inline F32 load_bfloat(const void* from) { return F32(__builtin_convertvector(load<U16half>(from), U32) << 16); }

/// e^x to 2 ulp over the float range (Cephes' polynomial); 0 below −87.3.
inline F32 exp(F32 x) {
  F32 clamped = min(max(x, splat(-87.3f)), splat(88.3f));
  F32 n = (clamped * 1.44269504f + kToNearest) - kToNearest;
  F32 r = mul_add(n, splat(-0.693359375f), clamped);
  r = mul_add(n, splat(2.12194440e-4f), r);
  F32 p = splat(1.9875691500e-4f);
  p = mul_add(p, r, splat(1.3981999507e-3f));
  p = mul_add(p, r, splat(8.3334519073e-3f));
  p = mul_add(p, r, splat(4.1665795894e-2f));
  p = mul_add(p, r, splat(1.6666665459e-1f));
  p = mul_add(p, r, splat(5.0000001201e-1f));
  p = mul_add(p, r * r, r + 1.0f);
  I32 power = (__builtin_convertvector(n, I32) + 127) << 23;
  return F32(I32(p * F32(power)) & I32(x >= splat(-87.3f)));
}
inline F32 tanh(F32 x) { return 1.0f - 2.0f / (exp(x * 2.0f) + 1.0f); }

}  // namespace sb::SB_ISA
