// Sign planes (formats/planes.h) on the CPU. Few tokens: one-bit products of the rotated input in 16 bits with each plane's signs as bytes,
// then the filter. Many tokens: a tile of V is unpacked to floats, scaled, and met with the rotated panels.
#pragma once

#include <algorithm>

#include "device/cpu/kernels/panels-inl.h"
#include "formats/planes.h"

namespace sb::SB_ISA {

/// Lane l of a vector that begins at input 32j + first: how far left its bit must go to become the sign bit of a float.
template <int kFirst>
inline U32 sign_shifts() {
  return []<int... kL>(std::integer_sequence<int, kL...>) {
    return U32{uint32_t(31 - plane_bit(kFirst + kL))...};
  }(std::make_integer_sequence<int, kLanes>());
}
/// −0.0 in lanes whose bit is 0 (S = −1), 0.0 elsewhere: x ⊕ that is S · x.
template <int kFirst>
inline U32 minus_where_zero(uint32_t word) {
  const U32 all = U32{} + word;
#if defined(__AVX2__)
  const U32 top = all << sign_shifts<kFirst>();
#else
  // Without shifts a lane of its own, a product with a power of two does it.
  const U32 top = []<int... kL>(U32 v, std::integer_sequence<int, kL...>) { return v * U32{(1u << (31 - plane_bit(kFirst + kL)))...}; }(
                      all, std::make_integer_sequence<int, kLanes>());
#endif
  return ~top & 0x80000000u;
}
/// Calls f(first input, mask) for the 32 inputs of a word, a vector at a time.
template <class F>
inline void each_sign_vector(uint32_t word, F f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) {
    (f(kI * kLanes, minus_where_zero<kI * kLanes>(word)), ...);
  }(std::make_integer_sequence<int, 32 / kLanes>());
}

/// Lane l ← v[l ^ kStride] + (bit kStride of l ? −v[l] : v[l]): one butterfly stage inside a vector.
template <int kStride>
inline F32 butterfly(F32 v) {
  return [&]<int... kL>(std::integer_sequence<int, kL...>) {
    const F32 partner = __builtin_shufflevector(v, v, (kL ^ kStride)...);
    const U32 minus = {((kL & kStride) ? 0x80000000u : 0u)...};
    return partner + F32(U32(v) ^ minus);
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

/// x̃ = c ⊙ Had(su ⊙ x) in 16 bits, per token base then refinement.
inline void pack_planes_few(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const PlaneMatrix& m = *step.views.in[1].planes;
  const int block = rotation_block(m);
  const int64_t n_blocks = m.n_columns / block;
  alignas(64) float rotated[128], scaled[128];
  for (int64_t i = worker.thread; i < x.shape[0] * n_blocks; i += worker.n_threads) {
    const int64_t t = i / n_blocks, first = i % n_blocks * block;
    rotate_block(m, x.row<float>(t), x.shape[1], first, block, rotated);
    for (int set = 0; set < m.n_sets; ++set) {
      const uint16_t* c = m.sets[set].column_scale;
      for (int j = 0; j < block; j += kLanes)
        store(scaled + j, c ? load<F32>(rotated + j) * load_half(c + first + j) : load<F32>(rotated + j));
      const PackedRow row = PackedRow::at(step.packed, t * m.n_sets + set, m.n_columns);
      for (int g = 0; g < block / 32; ++g) pack_group(scaled + 32 * g, row, first / 32 + g);
    }
  }
}

/// Had(su ⊙ x) to panels; c goes into the weights, because the sets have their own.
inline void pack_planes_many(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const PlaneMatrix& m = *step.views.in[1].planes;
  const int block = rotation_block(m);
  const int64_t n_blocks = m.n_columns / block, n_tokens = x.shape[0], width = panel_width(n_tokens),
                n_panels = (n_tokens + width - 1) / width;
  alignas(64) float rotated[128];
  for (int64_t i = worker.thread; i < n_panels * n_blocks; i += worker.n_threads) {
    const int64_t panel = i / n_blocks, first = i % n_blocks * block;
    float* to = reinterpret_cast<float*>(step.packed) + (panel * m.n_columns + first) * width;
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t t = panel * width + lane;
      if (t < n_tokens) {
        rotate_block(m, x.row<float>(t), x.shape[1], first, block, rotated);
      } else {
        std::fill_n(rotated, block, 0.0f);
      }
      for (int j = 0; j < block; ++j) to[j * width + lane] = rotated[j];
    }
  }
}

inline float row_scale(const PlaneSet& s, int64_t r) {
  return s.row_scale.floats ? s.row_scale.floats[r] : half_to_f32(s.row_scale.halves[r]);
}

/// 32 signs as bytes ±1, inputs 0 … 15 and 16 … 31: byte l of the repeated word holds the bits of inputs l mod 4.
inline void sign_bytes(uint32_t word, I8x16& low, I8x16& high) {
  typedef uint32_t U32x4 __attribute__((vector_size(16)));
  const U8x16 bytes = U8x16(U32x4{} + word);
  const U8x16 first = {1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8};
  const U8x16 second = first << 4;
  low = (I8x16((bytes & first) == first) & 2) - 1;
  high = (I8x16((bytes & second) == second) & 2) - 1;
}

/// z[p][t] = Σ_k S_p[row, k] · x[t][k].
template <int kPlanes, int kTokens>
inline void one_bit_products(const uint32_t* words, int64_t words_per_row, const PackedRow* x, float* z) {
  F32 acc[kPlanes][kTokens] = {};
  for (int64_t g = 0; g < words_per_row; ++g) {
    I16 xs[kTokens][Group::kVectors];
    F32 scale[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      for (int i = 0; i < Group::kVectors; ++i) xs[t][i] = load<I16>(x[t].q + g * 32 + i * 2 * kLanes);
      scale[t] = splat(x[t].scale_sum[2 * g]);
    }
    for (int p = 0; p < kPlanes; ++p) {
      I8x16 low, high;
      sign_bytes(words[p * words_per_row + g], low, high);
      const Group s = widen(low, high);
      for (int t = 0; t < kTokens; ++t) {
        I32 all{};
        for (int i = 0; i < Group::kVectors; ++i) all = dot(s.v[i], xs[t][i], all);
        acc[p][t] = mul_add(to_f32(all), scale[t], acc[p][t]);
      }
    }
  }
  for (int p = 0; p < kPlanes; ++p) {
    for (int t = 0; t < kTokens; ++t) z[p * kTokens + t] = sum(acc[p][t]);
  }
}
template <int kTokens>
inline void one_bit_products(int n_planes, const uint32_t* words, int64_t words_per_row, const PackedRow* x, float* z) {
  if (n_planes == 2) return one_bit_products<2, kTokens>(words, words_per_row, x, z);
  if (n_planes == 3) return one_bit_products<3, kTokens>(words, words_per_row, x, z);
  if (n_planes == 4) return one_bit_products<4, kTokens>(words, words_per_row, x, z);
  one_bit_products<1, kTokens>(words, words_per_row, x, z);
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
/// The row that lies `back` rows above `row` in its segment, around its start.
inline int64_t row_above(int64_t row, int64_t back, int64_t segment) {
  const int64_t start = row / segment * segment, at = row - start - back;
  return start + (at < 0 ? at + segment : at);
}

inline constexpr int64_t kLongestSegment = 256;
inline constexpr int64_t kFewPlanesFloats = (kLongestSegment + kMaxTaps) * kMaxPlanes * kFewTokens;

/// A run's one-bit products, with those of the rows above that its filter reaches, are kept in scratch; so threads need not meet.
template <int kTokens>
void few_planes(const Step& step, const Worker& worker) {
  const TensorView& w = step.views.in[1];
  const PlaneMatrix& m = *w.planes;
  float* z = reinterpret_cast<float*>(worker.scratch);  // [rows + J − 1][P][tokens]
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  int64_t begin, end;
  worker.share(w.shape[0], 32, begin, end);
  each_run(w.first_row + begin, w.first_row + end, m.segment, [&](int64_t first, int64_t n) {
    for (int set = 0; set < m.n_sets; ++set) {
      const PlaneSet& s = m.sets[set];
      const int n_planes = s.code.n_planes, reach = s.code.n_taps - 1;
      PackedRow x[kTokens];
      for (int t = 0; t < kTokens; ++t) x[t] = PackedRow::at(step.packed, t * m.n_sets + set, m.n_columns);
      for (int64_t i = 0; i < n + reach; ++i) {
        const int64_t row = i < reach ? row_above(first, reach - i, m.segment) : first + i - reach;
        one_bit_products<kTokens>(n_planes, s.words + row * n_planes * m.words_per_row(), m.words_per_row(), x, z + i * n_planes * kTokens);
      }
      for (int64_t i = 0; i < n; ++i) {
        float y[kTokens] = {};
        for (int q = 0; q <= reach; ++q) {
          for (int p = 0; p < n_planes; ++p) {
            for (int t = 0; t < kTokens; ++t)
              y[t] += s.code.filter[size_t(q)][size_t(p)] * z[((i + reach - q) * n_planes + p) * kTokens + t];
          }
        }
        const float scale = row_scale(s, first + i);
        const int64_t at = first + i - w.first_row;
        for (int t = 0; t < kTokens; ++t) {
          float* to = step.views.out.row<float>(t) + at;
          *to = scale * y[t] + (set ? *to : bias ? bias[at] : 0.0f);
        }
      }
    }
  });
}

/// sv[r] · c[k] · V[r, k] of all sets added, for a tile. Signs are unpacked once and met by all rows whose filter reaches them.
inline void unpack_planes(const TensorView& w, int64_t row0, int64_t n_rows, int64_t first, int64_t n, float* to) {
  const PlaneMatrix& m = *w.planes;
  alignas(64) uint32_t signs[(kTileRows + kMaxTaps - 1) * kMaxPlanes * 32];
  each_run(w.first_row + row0, w.first_row + row0 + n_rows, m.segment, [&](int64_t run, int64_t n_run) {
    float* tile = to + (run - w.first_row - row0) * kTileColumns;
    for (int64_t j = 0; j < n; j += 32) {
      for (int set = 0; set < m.n_sets; ++set) {
        const PlaneSet& s = m.sets[set];
        const int n_planes = s.code.n_planes, reach = s.code.n_taps - 1;
        for (int64_t i = 0; i < n_run + reach; ++i) {
          const int64_t row = i < reach ? row_above(run, reach - i, m.segment) : run + i - reach;
          for (int p = 0; p < n_planes; ++p) {
            const uint32_t word = s.words[(row * n_planes + p) * m.words_per_row() + (first + j) / 32];
            each_sign_vector(word, [&](int at, U32 minus) { store(signs + (i * n_planes + p) * 32 + at, minus); });
          }
        }
        for (int64_t i = 0; i < n_run; ++i) {
          const float scale = row_scale(s, run + i);
          for (int at = 0; at < 32; at += kLanes) {
            F32 v{};
            for (int q = 0; q <= reach; ++q) {
              for (int p = 0; p < n_planes; ++p)
                v += F32(load<U32>(signs + ((i + reach - q) * n_planes + p) * 32 + at) ^ U32(splat(s.code.filter[size_t(q)][size_t(p)])));
            }
            v *= scale;
            if (s.column_scale) v *= load_half(s.column_scale + first + j + at);
            float* out = tile + i * kTileColumns + j + at;
            store(out, set ? load<F32>(out) + v : v);
          }
        }
      }
    }
  });
}

}  // namespace sb::SB_ISA
