// The matmul of few tokens: each row of weights is read once, where it lies. Block types meet 16-bit activations with a scale per 32
// (kernel.h, PackedRow) in exact sums of 32 products:
//
//   y = Σ_groups d · sx · Σ code · xq + m · sx · Σ xq,   weight = d · code + m
//
// Scales are made for eight groups at once: d · sx goes to memory, whence a group's comes back in every lane for nothing but a load, and
// the second term is one vector product for all eight.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"
#include "formats/gguf-inl.h"

namespace sb::SB_ISA {

/// Rows of weights that meet the activations together, so that these are loaded once: as many as the registers hold.
template <int kTokens>
inline constexpr int kRowsAtOnce = kLanes == 16 || (kLanes == 8 && kTokens == 1) ? 4 : 2;

/// Each group's scale twice: for groups 4 · half … 4 · half + 3.
inline F32x8 twice(F32x8 v, int half) {
  return half ? __builtin_shufflevector(v, v, 4, 4, 5, 5, 6, 6, 7, 7) : __builtin_shufflevector(v, v, 0, 0, 1, 1, 2, 2, 3, 3);
}

/// Groups whose scales are made before their products: what has just been stored comes back late.
inline constexpr int64_t kStretch = 64;

/// Scales of groups [begin, end) of a row for kTokens inputs: scale[t][group] = d · sx, and m · sx · Σ xq goes into offset.
template <Dtype D, int kTokens, int64_t kWide>
inline void stretch_scales(const uint8_t* row, int64_t begin, int64_t end, const PackedRow* x, float (&scale)[kTokens][kWide],
                           F32x8 (&offset)[kTokens]) {
  using Decoder = GroupDecoder<D>;
  constexpr int kParts = Decoder::kSplit ? 2 : 1;
  constexpr int64_t kBytes = dtype_row(D).bytes_per_block;
  alignas(32) int32_t heads[kStretch];
  if constexpr (kIsBlockGroup<D>) {
#pragma clang loop vectorize(disable) unroll_count(4)  // integer units have nothing else to do; inserting into vectors takes longer
    for (int64_t g = begin; g < end; ++g) heads[g - begin] = load<int32_t>(row + g * kBytes);
    for (int64_t g = end; g % kChunk; ++g) heads[g - begin] = 0;
  }
  for (int64_t first = begin; first < end; first += kChunk) {
    ChunkScales s;
    if constexpr (kIsBlockGroup<D>) {
      Decoder::scales(load<I32x8>(heads + first - begin), s);
    } else {
      Decoder::scales(row + first / 8 * kBytes, s);
    }
    for (int t = 0; t < kTokens; ++t) {
      const F32x8 sx = load<F32x8>(x[t].scale + first);
      for (int p = 0; p < kParts; ++p) {
        store(&scale[t][(first - begin) * kParts + p * kChunk], s.d[p] * (Decoder::kSplit ? twice(sx, p) : sx));
        if constexpr (Decoder::kHasMin || (Decoder::kLowest != 0 && !words_are_signed<D>())) {
          const float* sums = Decoder::kSplit ? x[t].half_sums + 2 * first + p * kChunk : x[t].sum + first;
          offset[t] += offsets<D>(s, p) * load<F32x8>(sums);
        }
      }
    }
  }
}

/// y[r][t] = rows[r] · x[t], of rows that lie one behind the other. What is `ahead` bytes behind is fetched meanwhile, line by line: short
/// rows end before the hardware has seen their pattern, and lines asked for all at once, or in turn for each row, come later.
template <Dtype D, int kTokens, int kRows>
inline void dot_rows(const uint8_t* const* rows, int64_t k, int64_t ahead, const PackedRow* x, float (&y)[kRows][kTokens]) {
  constexpr bool kSplit = GroupDecoder<D>::kSplit;
  constexpr int kParts = kSplit ? 2 : 1;
  constexpr int64_t kBytes = dtype_row(D).bytes_per_block, kAhead = kRows * kBytes * 32 / dtype_row(D).block, kLines = (kAhead + 63) / 64;
  constexpr bool kInPlace = kConvertsHalves && words_are_signed<D>();  // one scale and no offset: not worth a turn of its own
  const int64_t n_groups = k / 32;
  F32 acc[kRows][kTokens] = {};
  F32x8 offset[kRows][kTokens] = {};
  for (int64_t begin = 0; begin < n_groups; begin += kStretch) {
    const int64_t end = std::min(n_groups, begin + kStretch);
    alignas(32) float scale[kRows][kTokens][kParts * kStretch];
    for (int r = 0; r < kRows && !kInPlace; ++r) stretch_scales<D>(rows[r], begin, end, x, scale[r], offset[r]);
    auto group = [&](int64_t g) {
      I16 xs[kTokens][Group::kVectors];
      for (int t = 0; t < kTokens; ++t) {
        for (int v = 0; v < Group::kVectors; ++v) xs[t][v] = load<I16>(x[t].q + g * 32 + v * 2 * kLanes);
      }
      for (int i = 0; i < kLines; ++i) prefetch(rows[0] + ahead + g * kAhead + i * kAhead / kLines);
      for (int r = 0; r < kRows; ++r) {
        const Group w = words<D>(rows[r], g);
        for (int t = 0; t < kTokens; ++t) {
          const float* by = &scale[r][t][(g - begin) * kParts];
          if constexpr (kSplit && kLanes == 4) {  // the halves are in vectors of their own
            constexpr int kHalf = Group::kVectors / 2;
            for (int h = 0; h < 2; ++h) {
              I32 total{};
              for (int v = h * kHalf; v < (h + 1) * kHalf; ++v) total = dot(w.v[v], xs[t][v], total);
              acc[r][t] = mul_add(to_f32(total), splat(by[h]), acc[r][t]);
            }
          } else {
            I32 total{};
            for (int v = 0; v < Group::kVectors; ++v) total = dot(w.v[v], xs[t][v], total);
            F32 both;
            if constexpr (kInPlace) {
              both = splat_half(rows[r] + g * kBytes) * x[t].scale[g];
            } else {
              both = kSplit ? halves(by) : splat(*by);
            }
            acc[r][t] = mul_add(to_f32(total), both, acc[r][t]);
          }
        }
      }
    };
    if constexpr (kIsBlockGroup<D>) {
      for (int64_t g = begin; g < end; ++g) group(g);
    } else {
      for (int64_t first = begin; first < end; first += kChunk) {
#if defined(__wasm__)
#pragma clang loop unroll(disable)
#else
#pragma clang loop unroll(full)  // where a group's bits lie in a block is then known
#endif
        for (int i = 0; i < kChunk; ++i) group(first + i);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      if constexpr (kLanes == 8) {
        y[r][t] = sum(acc[r][t] + offset[r][t]);
      } else {
        y[r][t] = sum(acc[r][t]) + sum_of_eight(offset[r][t]);
      }
    }
  }
}

/// Gives every row of this part's share to kernel(row, std::integral_constant<int, rows at once>, bytes to what is wanted soon, or 0).
template <int kRows, class Rows>
inline void each_rows(const TensorView& w, const Worker& worker, Rows kernel) {
  int64_t begin, end;
  worker.share(w.shape[0], 16, begin, end);
  const int64_t ahead = std::max<int64_t>(kRows * w.row_bytes, 3072);
  int64_t n = begin;
  for (; n + kRows <= end; n += kRows) {
    const bool is_inside = (end - n - kRows) * w.row_bytes >= ahead;
    kernel(n, std::integral_constant<int, kRows>(), is_inside ? ahead : 0);
  }
  for (; n < end; ++n) kernel(n, std::integral_constant<int, 1>(), 0);
}

template <int kTokens, int kRows>
inline void put(const Step& step, int64_t row, const float (&y)[kRows][kTokens]) {
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) + row : nullptr;
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) step.views.out.row<float>(t)[row + r] = y[r][t] + (bias ? bias[r] : 0.0f);
  }
}

template <Dtype D, int kTokens>
void few_tokens(const Step& step, const Worker& worker) {
  const TensorView& w = step.views.in[1];
  PackedRow x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = PackedRow::at(step.packed, t, w.shape[1]);
  each_rows<kRowsAtOnce<kTokens>>(w, worker, [&]<int kRows>(int64_t row, std::integral_constant<int, kRows>, int64_t ahead) {
    const uint8_t* at[kRows];
    for (int r = 0; r < kRows; ++r) at[r] = reinterpret_cast<const uint8_t*>(w.row_bytes_at(row + r));
    float y[kRows][kTokens];
    dot_rows<D, kTokens, kRows>(at, w.shape[1], ahead, x, y);
    put(step, row, y);
  });
}

template <Dtype D>
inline F32 load_plain(const std::byte* p) {
  if constexpr (D == Dtype::kF32) return load<F32>(p);
  if constexpr (D == Dtype::kF16) return load_half(p);
  if constexpr (D == Dtype::kBF16) return load_bfloat(p);
}
template <Dtype D>
inline float load_plain_one(const std::byte* p) {
  if constexpr (D == Dtype::kF32) return load<float>(p);
  if constexpr (D == Dtype::kF16) return half_to_f32(load<uint16_t>(p));
  if constexpr (D == Dtype::kBF16) return __builtin_bit_cast(float, uint32_t(load<uint16_t>(p)) << 16);
}

/// The same over plain floats of any width. Four sums at once: each waits for itself only every fourth product.
template <Dtype D, int kTokens>
void few_tokens_plain(const Step& step, const Worker& worker) {
  const TensorView &x = step.views.in[0], &w = step.views.in[1];
  constexpr int64_t element = dtype_row(D).bytes_per_block;
  const int64_t k = w.shape[1], whole = k / kLanes * kLanes;
  each_rows<kTokens == 1 ? 4 : 2>(w, worker, [&]<int kRows>(int64_t row, std::integral_constant<int, kRows>, int64_t ahead) {
    F32 acc[kRows][kTokens] = {};
    auto at = [&](int r, int64_t i) { return w.row_bytes_at(row + r) + i * element; };
    auto columns = [&](int64_t i) {
      for (int r = 0; r < kRows; ++r) {
        const F32 weights = load_plain<D>(at(r, i));
        for (int t = 0; t < kTokens; ++t) acc[r][t] = mul_add(weights, load<F32>(x.row<float>(t) + i), acc[r][t]);
      }
    };
    constexpr int64_t kLine = 64 / element;  // columns of a cache line
    int64_t i = 0;
    for (; i + kLine <= k; i += kLine) {
      for (int r = 0; r < kRows; ++r) prefetch(at(0, i * kRows) + 64 * r + ahead);
#pragma clang loop unroll_count(2)
      for (int64_t j = 0; j < kLine; j += kLanes) columns(i + j);
    }
    for (; i < whole; i += kLanes) columns(i);
    float y[kRows][kTokens];
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTokens; ++t) {
        y[r][t] = sum(acc[r][t]);
        for (int64_t j = whole; j < k; ++j) y[r][t] += load_plain_one<D>(at(r, j)) * x.row<float>(t)[j];
      }
    }
    put(step, row, y);
  });
}

/// 32 of x to 16-bit integers with one scale: group g of a packed row. What is no number among them makes the scale one that is none.
inline void pack_group(const float* from, const PackedRow& row, int64_t g, bool is_mixed) {
  const auto [top, is_finite] = largest_of_32(from);
  const float inverse = is_finite && top > 0 ? 32767.0f / top : 0.0f;
  typedef int16_t I16half __attribute__((vector_size(2 * kLanes)));
  alignas(64) int16_t q[32];
  int sums[2] = {};
  for (int j = 0; j < 32; j += kLanes) {
    // Nearest integer by 1.5·2^23, as in exp: the same on every instruction set.
    const F32 nearest = (load<F32>(from + j) * inverse + kToNearest) - kToNearest;
    store(q + j, __builtin_convertvector(__builtin_convertvector(nearest, I32), I16half));
  }
  for (int j = 0; j < 32; ++j) sums[j / 16] += q[j];
  for (int j = 0; j < 4; ++j) std::memcpy(row.q + g * 32 + (is_mixed ? kWidenedOrder[j] : j) * 8, q + j * 8, 16);
  const float scale = is_finite ? top / 32767.0f : std::numeric_limits<float>::quiet_NaN();
  row.scale[g] = scale;
  row.sum[g] = scale * float(sums[0] + sums[1]);
  for (int h = 0; h < 2; ++h) row.half_sums[2 * g + h] = scale * float(sums[h]);
}

inline void pack_rows(const Step& step, const Worker& worker, bool is_mixed) {
  const TensorView& x = step.views.in[0];
  const int64_t k = x.shape[1], n_groups = PackedRow::n_groups(k);
  int64_t begin, end;  // over all rows' groups
  worker.share(x.shape[0] * n_groups, 8, begin, end);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i / n_groups, g = i % n_groups;
    const PackedRow row = PackedRow::at(step.packed, t, k);
    if (g < k / 32) {
      pack_group(x.row<float>(t) + g * 32, row, g, is_mixed);
    } else {
      row.scale[g] = row.sum[g] = row.half_sums[2 * g] = row.half_sums[2 * g + 1] = 0;
    }
  }
}

}  // namespace sb::SB_ISA
