// Sign planes (formats/planes.h) on the CPU, by table lookup: four inputs make a table of their 16 signed sums in 8 bits, and a nibble of a
// plane looks up what 4 weights of a row contribute. Lanes are rows; the filter over rows follows in float32.
//
// 8 bits: an entry is off by at most 1/254 of the largest sum of four in 256 inputs, whose sizes the rotation has evened out. That is
// 5e-5 of the answer's power, where coded4 itself has lost 5e-3. 16-bit entries (two tables) cost 1.4 times the time.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"
#include "formats/planes.h"

namespace sb::SB_ISA {

/// Inputs that share a scale. Their 64 entries of at most 255 add up in 16 bits without a sign: 16,320.
inline constexpr int64_t kTableInputs = 256;

/// A token's tables for one set of planes.
struct PlaneTables {
  uint8_t* entries;  // [K/4][16]: round(sum / scale) + 128; entry e has +x_b where bit b of e is set, −x_b elsewhere
  float* scales;     // [K / kTableInputs, rounded up]
  static int64_t n_bytes(int64_t k) { return (4 * k + 4 * ((k + kTableInputs - 1) / kTableInputs) + 63) / 64 * 64; }
  static PlaneTables at(std::byte* base, int64_t row, int64_t k) {
    std::byte* p = base + row * n_bytes(k);
    return {reinterpret_cast<uint8_t*>(p), reinterpret_cast<float*>(p + 4 * k)};
  }
};

/// −0.0 in lanes whose bit is 0 (S = −1), 0.0 elsewhere: x ⊕ that is S · x. Lane l is input 32j + first + l.
template <int kFirst>
inline U32 minus_where_zero(uint32_t word) {
  const U32 bits = []<int... kL>(std::integer_sequence<int, kL...>) {
    return U32{1u << plane_bit(kFirst + kL)...};
  }(std::make_integer_sequence<int, kLanes>());
  return U32(((U32{} + word) & bits) == 0) & 0x80000000u;
}
/// Calls f(first input, mask) for the 32 inputs of a word, a vector at a time.
template <class F>
inline void each_sign_vector(uint32_t word, F f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) {
    (f(kI * kLanes, minus_where_zero<kI * kLanes>(word)), ...);
  }(std::make_integer_sequence<int, 32 / kLanes>());
}

/// Lane l ← v[l ^ kStride].
template <int kStride>
inline F32 exchanged(F32 v) {
  return [&]<int... kL>(std::integer_sequence<int, kL...>) {
    return __builtin_shufflevector(v, v, (kL ^ kStride)...);
  }(std::make_integer_sequence<int, kLanes>());
}
/// Lane l ← v[l ^ kStride] + (bit kStride of l ? −v[l] : v[l]): one butterfly stage inside a vector.
template <int kStride>
inline F32 butterfly(F32 v) {
  return [&]<int... kL>(std::integer_sequence<int, kL...>) {
    const U32 minus = {((kL & kStride) ? 0x80000000u : 0u)...};
    return exchanged<kStride>(v) + F32(U32(v) ^ minus);
  }(std::make_integer_sequence<int, kLanes>());
}

/// Had(su ⊙ x) of one block of `block` inputs (at most 128) that begins at input `first`; inputs from k on are zeros.
inline void rotate_block(const PlaneMatrix& m, const float* x, int64_t k, int64_t first, int block, float* to) {
  const int64_t n = std::clamp<int64_t>(k - first, 0, block);
  std::copy_n(x + first, n, to);
  std::fill(to + n, to + block, 0.0f);
  if (!m.hadamard) return;
  for (int j = 0; j < block; j += 32) {
    each_sign_vector(m.signs[(first + j) / 32], [&](int at, U32 minus) { store(to + j + at, U32(load<F32>(to + j + at)) ^ minus); });
  }
  const float scale = 1.0f / __builtin_sqrtf(float(block));
  for (int i = 0; i < block; i += kLanes) {
    F32 v = load<F32>(to + i) * scale;
    v = butterfly<1>(v);
    v = butterfly<2>(v);
    if constexpr (kLanes >= 8) v = butterfly<4>(v);
    if constexpr (kLanes >= 16) v = butterfly<8>(v);
    store(to + i, v);
  }
  for (int stride = kLanes; stride < block; stride *= 2) {
    for (int i = 0; i < block; i += 2 * stride) {
      for (int j = i; j < i + stride; j += kLanes) {
        const F32 a = load<F32>(to + j), b = load<F32>(to + j + stride);
        store(to + j, a + b);
        store(to + j + stride, a - b);
      }
    }
  }
}
inline int rotation_block(const PlaneMatrix& m) { return m.hadamard ? m.hadamard : 32; }

/// Vectors that hold the 16 entries of a table: lane l of vector v is entry kEntryVectors·l + v, so that shifts bring the bytes together.
inline constexpr int kEntryVectors = 16 / kLanes;

/// +1 in lanes whose entry has bit b, −1 elsewhere.
template <int kBit, int kVector>
inline F32 entry_signs() {
  return []<int... kL>(std::integer_sequence<int, kL...>) {
    return F32{((kEntryVectors * kL + kVector) >> kBit & 1 ? 1.0f : -1.0f)...};
  }(std::make_integer_sequence<int, kLanes>());
}
/// The 16 entries of four inputs that are already in units of the scale.
inline void fill_table(const float* x, uint8_t* to) {
  // kToNearest leaves the nearest integer in the low bits; with 128 it is 1 … 255. What lies above the byte is taken off all vectors first
  // (of the third and fourth the shifts leave nothing of it).
  constexpr uint32_t kAbove = __builtin_bit_cast(uint32_t, kToNearest);
  U32 bytes = U32{} - (kAbove + (kAbove << 8));
  const F32 high = splat(x[2]) * entry_signs<2, 0>() + splat(x[3]) * entry_signs<3, 0>();  // the same in every vector
  [&]<int... kV>(std::integer_sequence<int, kV...>) {
    auto fill = [&]<int kVector>(std::integral_constant<int, kVector>) {
      const F32 low = splat(x[0]) * entry_signs<0, kVector>() + splat(x[1]) * entry_signs<1, kVector>();
      bytes += U32(low + high + (kToNearest + 128)) << (8 * kVector);
    };
    (fill(std::integral_constant<int, kV>()), ...);
  }(std::make_integer_sequence<int, kEntryVectors>());
#if defined(__AVX512F__)
  store(to, __builtin_convertvector(bytes, U8lanes));  // the lowest byte
#elif defined(__AVX2__)
  store(to, __builtin_convertvector(bytes, U16half));  // the lowest two
#else
  store(to, bytes);
#endif
}
/// The tables of n inputs (a multiple of 32, at most kTableInputs), and their scale. Not a number among the inputs makes it the scale.
inline void fill_tables(float* x, int64_t n, uint8_t* to, float& scale) {
  F32 total{}, largest_four{};
  for (int64_t j = 0; j < n; j += kLanes) {
    F32 v = abs(load<F32>(x + j));
    total += v;
    v += exchanged<1>(v);
    largest_four = max(v + exchanged<2>(v), largest_four);
  }
  const float largest = highest(largest_four);
  const bool is_finite = sum(total) <= std::numeric_limits<float>::max();
  const bool is_zero = !(largest > 1e-30f);  // its inverse could be infinite
  scale = !is_finite ? std::numeric_limits<float>::quiet_NaN() : is_zero ? 0 : largest / 127.0f;
  const float inverse = !is_finite || is_zero ? 0 : 127.0f / largest;
  for (int64_t j = 0; j < n; j += kLanes) store(x + j, load<F32>(x + j) * inverse);
  for (int64_t j = 0; j < n; j += 4) fill_table(x + j, to + 4 * j);
}

/// The tables of c ⊙ Had(su ⊙ x), per token base then refinement.
inline void pack_planes(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const PlaneMatrix& m = *step.views.in[1].planes;
  const int block = rotation_block(m);
  const int64_t n_parts = (m.n_columns + kTableInputs - 1) / kTableInputs;
  alignas(64) float rotated[kTableInputs], scaled[kTableInputs];
  for (int64_t i = worker.part; i < x.shape[0] * n_parts; i += worker.n_parts) {
    const int64_t t = i / n_parts, part = i % n_parts, first = part * kTableInputs, n = std::min(kTableInputs, m.n_columns - first);
    for (int64_t j = 0; j < n; j += block) rotate_block(m, x.row<float>(t), x.shape[1], first + j, block, rotated + j);
    for (int set = 0; set < m.n_sets; ++set) {
      const uint16_t* c = m.sets[set].column_scale;
      for (int64_t j = 0; j < n; j += kLanes)
        store(scaled + j, c ? load<F32>(rotated + j) * load_half(c + first + j) : load<F32>(rotated + j));
      const PlaneTables tables = PlaneTables::at(step.packed, t * m.n_sets + set, m.n_columns);
      fill_tables(scaled, n, tables.entries + 4 * first, tables.scales[part]);
    }
  }
}
inline int64_t packed_plane_bytes(const PlaneMatrix& m, int64_t n_tokens) {
  return n_tokens * m.max_sets * PlaneTables::n_bytes(m.n_columns);
}

typedef uint16_t U16x8 __attribute__((vector_size(16)));
typedef int16_t I16x8 __attribute__((vector_size(16)));

/// Lanes of both halves added until eight are left: each 16 bytes of a vector hold other inputs of the same rows.
inline U16x8 add_segments(U16 v) {
#if defined(__AVX512F__)
  typedef uint16_t U16x16 __attribute__((vector_size(32)));
  const U16x16 half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) +
                      __builtin_shufflevector(v, v, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
#elif defined(__AVX2__)
  const U16 half = v;
#endif
#if defined(__AVX2__)
  return __builtin_shufflevector(half, half, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(half, half, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  return v;
#endif
}

/// sums += rows · scale, for 32 rows in four runs of eight.
inline void add_scaled(const I16x8 (&rows)[4], float scale, F32 (&sums)[32 / kLanes]) {
  for (int i = 0; i < 32 / kLanes; ++i) {
#if defined(__AVX512F__)
    const I32 wide = __builtin_convertvector(
        __builtin_shufflevector(rows[2 * i], rows[2 * i + 1], 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), I32);
#elif defined(__AVX2__)
    const I32 wide = __builtin_convertvector(rows[i], I32);
#else
    const I16x8 v = rows[i / 2];
    const I32 wide = i % 2 ? __builtin_convertvector(__builtin_shufflevector(v, v, 4, 5, 6, 7), I32)
                           : __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3), I32);
#endif
    sums[i] = mul_add(to_f32(wide), splat(scale), sums[i]);
  }
}

/// Tokens that share the nibbles once they are apart: as many as the registers hold sums of.
inline constexpr int kPlaneTokens = kLanes == 16 ? 4 : 2;

/// Bytes of a plane (and of a table) that the loop takes at once, without a remainder: 32 inputs. Less in WebAssembly, where the compiler
/// looks all up before it adds, which no register file holds.
#if defined(__wasm__)
inline constexpr int64_t kUnrolledBytes = 32;
#else
inline constexpr int64_t kUnrolledBytes = 4 * 32;
#endif

/// What is asked for ahead of what is read: a processor's own guesses end where a page of 4 KB does.
inline constexpr int64_t kPlaneBytesAhead = 4096;

/// One-bit products of 32 rows: z[t][r] = Σ_k S[r, k] · x̃[t][k]. block: a plane of a block, [K/4][16] bytes
template <int kTokens>
inline void one_bit_products(const uint8_t* block, const PlaneTables* x, int64_t k, float* const* z) {
  F32 sums[kTokens][32 / kLanes] = {};
  for (int64_t first = 0; first < k; first += kTableInputs) {
    const int64_t n = std::min(kTableInputs, k - first);
    // A lane of 16 bits takes the looked-up bytes of two rows at once. `odd` is the sum of the upper ones alone; 256 times that taken from
    // `both` leaves the lower ones', modulo 2^16, which they stay below.
    U16 both[kTokens][2] = {}, odd[kTokens][2] = {};
    for (int64_t group = 4 * first; group < 4 * (first + n); group += kUnrolledBytes) {
      ask_for(block + group + kPlaneBytesAhead, kUnrolledBytes);
#pragma clang loop unroll(full)
      for (int64_t i = group; i < group + kUnrolledBytes; i += int64_t(sizeof(U8))) {
        const U8 pairs = load<U8>(block + i);
        const U8 nibbles[2] = {pairs & 15, U8(U16(pairs) >> 4) & 15};
        for (int t = 0; t < kTokens; ++t) {
          const U8 table = load<U8>(x[t].entries + i);
          for (int h = 0; h < 2; ++h) {
            const U16 found = U16(lookup(table, nibbles[h]));
            both[t][h] += found;
            odd[t][h] += found >> 8;
          }
        }
      }
    }
    const int16_t zero = int16_t(n / 4 * 128);
    for (int t = 0; t < kTokens; ++t) {
      I16x8 rows[4];
      for (int h = 0; h < 2; ++h) {
        rows[2 * h] = I16x8(add_segments(both[t][h] - (odd[t][h] << 8))) - zero;
        rows[2 * h + 1] = I16x8(add_segments(odd[t][h])) - zero;
      }
      add_scaled(rows, x[t].scales[first / kTableInputs], sums[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < 32 / kLanes; ++i) store(z[t] + i * kLanes, sums[t][i]);
  }
}

/// Calls f(first, n): runs of the rows [begin, end) that lie in one segment.
template <class F>
inline void each_run(int64_t begin, int64_t end, int64_t segment, F f) {
  while (begin < end) {
    const int64_t n = std::min(end, (begin / segment + 1) * segment) - begin;
    f(begin, n);
    begin += n;
  }
}

inline constexpr int64_t kLongestSegment = 256;
/// Tokens whose products of a segment are kept at a time, and floats of one plane of one token: the segment's, behind those that its
/// filter reaches above the first row.
inline constexpr int64_t kPlaneTileTokens = 16, kPlaneFloats = 8 + kLongestSegment;
static_assert(kMaxTaps - 1 <= 8);

struct PlaneScratch {
  float *z, *y;    // [tokens][P][kPlaneFloats], a segment's answers
  uint8_t* block;  // a block's bytes, for sets in rows' order
  static int64_t n_bytes(const PlaneMatrix& m) {
    bool has_rows = false;
    for (int set = 0; set < m.max_sets; ++set) has_rows = has_rows || m.sets[set].order == PlaneOrder::kRows;
    return (kPlaneTileTokens * kMaxPlanes * kPlaneFloats + kLongestSegment) * 4 + (has_rows ? 4 * m.n_columns * kMaxPlanes : 0);
  }
  explicit PlaneScratch(std::byte* at)
      : z(reinterpret_cast<float*>(at)),
        y(z + kPlaneTileTokens * kMaxPlanes * kPlaneFloats),
        block(reinterpret_cast<uint8_t*>(y + kLongestSegment)) {}
  float* plane(int64_t token, int p) const { return z + (token * kMaxPlanes + p) * kPlaneFloats + 8; }
};

/// The products of one block, all planes and the tile's tokens, at `row` of the segment's z.
inline void block_products(const PlaneMatrix& m, const PlaneSet& s, const PlaneTables* x, int64_t n_tokens, int64_t block, int64_t row,
                           const PlaneScratch& scratch) {
  const int n_planes = s.code.n_planes;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(s.words) + block * n_planes * 4 * m.n_columns;
  if (s.order == PlaneOrder::kRows) {
    pack_plane_block(s.words, n_planes, m.words_per_row(), block, scratch.block);
    bytes = scratch.block;
  }
  for (int p = 0; p < n_planes; ++p) {
    const uint8_t* plane = bytes + p * 4 * m.n_columns;
    int64_t t = 0;
    auto next = [&]<int kTokens>(std::integral_constant<int, kTokens>) {
      float* z[kTokens];
      for (int i = 0; i < kTokens; ++i) z[i] = scratch.plane(t + i, p) + row;
      one_bit_products<kTokens>(plane, x + t, m.n_columns, z);
      t += kTokens;
    };
    while (t + kPlaneTokens <= n_tokens) next(std::integral_constant<int, kPlaneTokens>());
    while (t < n_tokens) next(std::integral_constant<int, 1>());
  }
}

/// y[r] = sv[r] · Σ_q Σ_p C[q][p] · z_p[r − q] for rows [first, end) of a segment that begins at `segment_row`, both multiples of 32.
inline void filter_rows(const PlaneCode& code, const PlaneScratch& scratch, int64_t token, const RowScales& scales, int64_t segment_row,
                        int64_t first, int64_t end) {
  constexpr int kV = std::min(4, 32 / kLanes);  // sums that do not wait for each other
  for (int64_t r = first; r < end; r += kV * kLanes) {
    F32 y[kV] = {};
    for (int q = 0; q < code.n_taps; ++q) {
      for (int p = 0; p < code.n_planes; ++p) {
        const F32 c = splat(code.filter[size_t(q)][size_t(p)]);
        const float* z = scratch.plane(token, p) + r - q;
        for (int v = 0; v < kV; ++v) y[v] = mul_add(c, load<F32>(z + v * kLanes), y[v]);
      }
    }
    for (int v = 0; v < kV; ++v) {
      const int64_t at = r + v * kLanes, row = segment_row + at;
      store(scratch.y + at, y[v] * (scales.floats ? load<F32>(scales.floats + row) : load_half(scales.halves + row)));
    }
  }
}

inline void add_rows(const float* a, const float* b, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load<F32>(a + i) + load<F32>(b + i));
  for (; i < n; ++i) to[i] = a[i] + b[i];
}

/// Any number of tokens. Parts share the blocks of 32 rows; one that begins inside a segment also computes the block above for its
/// filter, so that none waits for another.
inline void planes_matmul(const Step& step, const Worker& worker) {
  const TensorView& w = step.views.in[1];
  const PlaneMatrix& m = *w.planes;
  const PlaneScratch scratch(worker.scratch);
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  const int64_t end_row = w.first_row + w.shape[0], first_block = w.first_row / kPlaneBlockRows, n_tokens = step.views.out.shape[0];
  int64_t begin, end;
  worker.share((end_row + kPlaneBlockRows - 1) / kPlaneBlockRows - first_block, 1, begin, end);
  begin += first_block;
  end += first_block;
  for (int64_t t0 = 0; t0 < n_tokens; t0 += kPlaneTileTokens) {
    const int64_t n_tile = std::min(kPlaneTileTokens, n_tokens - t0);
    const int64_t segment_blocks = m.segment / kPlaneBlockRows;
    each_run(begin, end, segment_blocks, [&](int64_t run, int64_t n_run) {
      const int64_t first_of_segment = run / segment_blocks * segment_blocks, start = run - first_of_segment;
      for (int set = 0; set < m.n_sets; ++set) {
        const PlaneSet& s = m.sets[set];
        PlaneTables x[kPlaneTileTokens];
        for (int64_t t = 0; t < n_tile; ++t) x[t] = PlaneTables::at(step.packed, (t0 + t) * m.n_sets + set, m.n_columns);
        auto products = [&](int64_t block) { block_products(m, s, x, n_tile, first_of_segment + block, block * kPlaneBlockRows, scratch); };
        for (int64_t i = 0; i < n_run; ++i) products(start + i);
        const int64_t above = start > 0 ? start - 1 : segment_blocks - 1;
        if (s.code.n_taps > 1 && n_run < segment_blocks && (start > 0 || n_run <= above)) products(above);
        for (int64_t t = 0; t < n_tile; ++t) {
          if (start == 0) {
            for (int p = 0; p < s.code.n_planes; ++p) {
              float* z = scratch.plane(t, p);
              std::copy_n(z + m.segment - (s.code.n_taps - 1), s.code.n_taps - 1, z - (s.code.n_taps - 1));
            }
          }
          const int64_t segment_row = first_of_segment * kPlaneBlockRows;
          filter_rows(s.code, scratch, t, s.row_scale, segment_row, start * kPlaneBlockRows, (start + n_run) * kPlaneBlockRows);
          float* out = step.views.out.row<float>(t0 + t);
          const int64_t from = std::max(run * kPlaneBlockRows, w.first_row), to = std::min((run + n_run) * kPlaneBlockRows, end_row);
          const float* y = scratch.y + from - segment_row;
          if (set) {
            add_rows(y, out + from - w.first_row, out + from - w.first_row, to - from);
          } else if (bias) {
            add_rows(y, bias + from - w.first_row, out + from - w.first_row, to - from);
          } else {
            std::copy_n(y, to - from, out + from - w.first_row);
          }
        }
      }
    });
  }
}

}  // namespace sb::SB_ISA
