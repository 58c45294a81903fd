// The matmul over every stored type. Few tokens: the weights are read where they lie, 32 at a time, and met with 16-bit activations.
// Many tokens: a tile of rows is unpacked once to float32 and met with all tokens.
#pragma once

#include <algorithm>
#include <type_traits>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"
#include "formats/gguf-inl.h"

namespace sb::SB_ISA {

/// Row-block of the many-token matmul: unpacked rows × columns that stay in the first-level cache (16 × 256 floats = 16 KiB).
inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileColumns = 256;

inline F32 load_plain(Dtype dtype, const std::byte* p) {
  if (dtype == Dtype::kF32) return load<F32>(p);
  return dtype == Dtype::kF16 ? load_half(p) : load_bfloat(p);
}
inline float load_plain_one(Dtype dtype, const std::byte* p) {
  if (dtype == Dtype::kF32) return load<float>(p);
  const uint16_t u = load<uint16_t>(p);
  return dtype == Dtype::kF16 ? half_to_f32(u) : __builtin_bit_cast(float, uint32_t(u) << 16);
}

/// Rows of weights that meet the activations together, so that these are loaded once: as many as the registers hold.
inline constexpr int kRowsAtOnce = kLanes == 16 ? 4 : 2;

/// y[r][t] = rows[r] · x[t].
template <Dtype D, int kTokens, int kRows>
inline void dot_rows(const uint8_t* const* rows, int64_t k, const PackedRow* x, float (&y)[kRows][kTokens]) {
  using Decoder = GroupDecoder<D>;
  F32 acc[kRows][kTokens] = {};
  F32x4 mins[kRows][kTokens] = {};  // in lane 1; split types: in lane 0
  for (int64_t g = 0; g < k / 32; ++g) {
    Group w[kRows];
    for (int r = 0; r < kRows; ++r) {
      I8x16 low, high;
      Decoder::codes(rows[r], g, low, high);
      w[r] = widen(low, high);
    }
    for (int t = 0; t < kTokens; ++t) {
      const int16_t* q = x[t].q + g * 32;
      I16 xs[Group::kVectors];
      for (int i = 0; i < Group::kVectors; ++i) xs[i] = load<I16>(q + i * 2 * kLanes);
      const F32x4 scale_sum = load<F32x4>(x[t].scale_sum + 2 * g);  // lanes 2 and 3 are the next group's, unused
      for (int r = 0; r < kRows; ++r) {
        if constexpr (!Decoder::kSplit) {
          I32 all{};
          for (int i = 0; i < Group::kVectors; ++i) all = dot(w[r].v[i], xs[i], all);
          const F32x4 scaled = Decoder::pair(rows[r], g) * scale_sum;
          acc[r][t] = mul_add(to_f32(all), spread(scaled), acc[r][t]);
          if constexpr (Decoder::kHasMin) mins[r][t] += scaled;
        } else {
          const GroupScales s = Decoder::scales(rows[r], g);
          if constexpr (Group::kVectors == 1) {
            const F32 both = halves(s.d[0] * scale_sum[0], s.d[1] * scale_sum[0]);
            acc[r][t] = mul_add(to_f32(dot(w[r].v[0], xs[0], I32{})), both, acc[r][t]);
          } else {
            constexpr int kHalf = Group::kVectors / 2;
            for (int h = 0; h < 2; ++h) {
              I32 half{};
              for (int i = h * kHalf; i < (h + 1) * kHalf; ++i) half = dot(w[r].v[i], xs[i], half);
              acc[r][t] = mul_add(to_f32(half), splat(s.d[h] * scale_sum[0]), acc[r][t]);
            }
          }
          if constexpr (Decoder::kHasMin) mins[r][t][0] += s.m[0] * x[t].half_sums[2 * g] + s.m[1] * x[t].half_sums[2 * g + 1];
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) y[r][t] = sum(acc[r][t]) + (Decoder::kHasMin ? mins[r][t][Decoder::kSplit ? 0 : 1] : 0.0f);
  }
}

template <Dtype D, int kTokens>
void few_tokens(const Step& step, const Worker& worker) {
  const TensorView& w = step.views.in[1];
  const int64_t k = w.shape[1];
  PackedRow x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = PackedRow::at(step.packed, t, k);
  int64_t begin, end;
  worker.share(w.shape[0], 16, begin, end);
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  auto rows = [&]<int kRows>(int64_t n, std::integral_constant<int, kRows>) {
    const uint8_t* at[kRows];
    for (int r = 0; r < kRows; ++r) at[r] = reinterpret_cast<const uint8_t*>(w.row_bytes_at(n + r));
    float y[kRows][kTokens];
    dot_rows<D, kTokens, kRows>(at, k, x, y);
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < kTokens; ++t) step.views.out.row<float>(t)[n + r] = y[r][t] + (bias ? bias[n + r] : 0.0f);
    }
  };
  int64_t n = begin;
  // The next block of rows comes while this one is multiplied: short rows end before the hardware has seen their pattern.
  const int64_t block_bytes = kRowsAtOnce * w.row_bytes;
  for (; n + kRowsAtOnce <= end; n += kRowsAtOnce) {
    if (n + 2 * kRowsAtOnce <= end) {
      for (int64_t i = 0; i < block_bytes; i += 64) prefetch(w.row_bytes_at(n + kRowsAtOnce) + i);
    }
    rows(n, std::integral_constant<int, kRowsAtOnce>());
  }
  for (; n < end; ++n) rows(n, std::integral_constant<int, 1>());
}

/// The same over plain floats of any width.
template <int kTokens>
void few_tokens_plain(const Step& step, const Worker& worker) {
  const TensorView &x = step.views.in[0], &w = step.views.in[1];
  const int64_t k = w.shape[1], element = dtype_row(w.dtype).bytes_per_block, whole = k / kLanes * kLanes;
  int64_t begin, end;
  worker.share(w.shape[0], 16, begin, end);
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  for (int64_t n = begin; n < end; ++n) {
    const std::byte* row = w.row_bytes_at(n);
    F32 acc[kTokens] = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
      const F32 weights = load_plain(w.dtype, row + i * element);
      for (int t = 0; t < kTokens; ++t) acc[t] = mul_add(weights, load<F32>(x.row<float>(t) + i), acc[t]);
    }
    for (int t = 0; t < kTokens; ++t) {
      float y = sum(acc[t]);
      for (int64_t i = whole; i < k; ++i) y += load_plain_one(w.dtype, row + i * element) * x.row<float>(t)[i];
      step.views.out.row<float>(t)[n] = y + (bias ? bias[n] : 0.0f);
    }
  }
}

/// Unpacks columns [first, first + n) of one row to floats; both are multiples of 32 for block types.
template <Dtype D>
void unpack(const std::byte* row, int64_t first, int64_t n, float* to) {
  using Decoder = GroupDecoder<D>;
  for (int64_t i = 0; i < n; i += 32) {
    I8x16 low, high;
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(row);
    const int64_t g = (first + i) / 32;
    Decoder::codes(bytes, g, low, high);
    if constexpr (Decoder::kSplit) {
      const GroupScales s = Decoder::scales(bytes, g);
      scale_to_f32(low, splat(s.d[0]), splat(s.m[0]), to + i);
      scale_to_f32(high, splat(s.d[1]), splat(s.m[1]), to + i + 16);
    } else {
      const F32x4 pair = Decoder::pair(bytes, g);
      const F32 d = spread(pair), m = Decoder::kHasMin ? splat(pair[1]) : F32{};
      scale_to_f32(low, d, m, to + i);
      scale_to_f32(high, d, m, to + i + 16);
    }
  }
}
template <Dtype D>
void unpack_plain(const std::byte* row, int64_t first, int64_t n, float* to) {
  constexpr int64_t element = dtype_row(D).bytes_per_block;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load_plain(D, row + (first + i) * element));
  for (; i < n; ++i) to[i] = load_plain_one(D, row + (first + i) * element);
}
using Unpack = void (*)(const std::byte* row, int64_t first, int64_t n, float* to);

/// y[t][r] += Σ w[r]·x[t] over n columns, for 4 rows and kTokens tokens held in registers.
template <int kTokens>
inline void tile(const float* w, const float* const* x, int64_t n, float (&y)[4][kTileTokens]) {
  F32 acc[4][kTokens] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    F32 xs[kTokens];
    for (int t = 0; t < kTokens; ++t) xs[t] = load<F32>(x[t] + i);
    for (int r = 0; r < 4; ++r) {
      const F32 ws = load<F32>(w + r * kTileColumns + i);
      for (int t = 0; t < kTokens; ++t) acc[r][t] = mul_add(ws, xs[t], acc[r][t]);
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      float s = sum(acc[r][t]);
      for (int64_t j = i; j < n; ++j) s += w[r * kTileColumns + j] * x[t][j];
      y[r][t] = s;
    }
  }
}

template <int kTokens>
inline void tile_rows(const float* weights, const TensorView& x, int64_t t0, int64_t first, int64_t n, int64_t row0, int64_t n_rows,
                      const MutableTensorView& out, const float* bias) {
  const float* xs[kTokens];
  for (int t = 0; t < kTokens; ++t) xs[t] = x.row<float>(t0 + t) + first;
  for (int64_t r = 0; r < n_rows; r += 4) {
    float y[4][kTileTokens];
    tile<kTokens>(weights + r * kTileColumns, xs, n, y);
    for (int t = 0; t < kTokens; ++t) {
      float* to = out.row<float>(t0 + t) + row0;
      for (int64_t i = r; i < std::min(r + 4, n_rows); ++i) to[i] = y[i - r][t] + (first ? to[i] : bias ? bias[row0 + i] : 0.0f);
    }
  }
}

inline void many_tokens(const Step& step, const Worker& worker, Unpack unpack_columns) {
  const TensorView &x = step.views.in[0], &w = step.views.in[1];
  const MutableTensorView& out = step.views.out;
  const int64_t k = w.shape[1], n_tokens = x.shape[0];
  float* weights = reinterpret_cast<float*>(worker.scratch);  // [kTileRows, kTileColumns]; rows past the end keep old numbers, unread
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  int64_t begin, end;
  worker.share(w.shape[0], kTileRows, begin, end);
  for (int64_t row0 = begin; row0 < end; row0 += kTileRows) {
    const int64_t n_rows = std::min(kTileRows, end - row0);
    for (int64_t first = 0; first < k; first += kTileColumns) {
      const int64_t n = std::min(kTileColumns, k - first);
      for (int64_t r = 0; r < n_rows; ++r) unpack_columns(w.row_bytes_at(row0 + r), first, n, weights + r * kTileColumns);
      int64_t t = 0;
      for (; t + kTileTokens <= n_tokens; t += kTileTokens) tile_rows<kTileTokens>(weights, x, t, first, n, row0, n_rows, out, bias);
      for (; t < n_tokens; ++t) tile_rows<1>(weights, x, t, first, n, row0, n_rows, out, bias);
    }
  }
}

/// The kernels of one stored type.
struct MatmulRow {
  void (*few[kFewTokens])(const Step&, const Worker&);  // by tokens − 1
  Unpack unpack;
};
template <Dtype D>
constexpr MatmulRow matmul_row() {
  if constexpr (dtype_row(D).block > 1) {
    return {{few_tokens<D, 1>, few_tokens<D, 2>, few_tokens<D, 3>}, unpack<D>};
  } else if constexpr (D != Dtype::kI32) {
    return {{few_tokens_plain<1>, few_tokens_plain<2>, few_tokens_plain<3>}, unpack_plain<D>};
  } else {
    return {};
  }
}

inline constexpr MatmulRow kMatmulRows[] = {
#define SB_ROW(name, gguf, block, bytes) matmul_row<Dtype::k##name>(),
    SB_DTYPES(SB_ROW)
#undef SB_ROW
};

inline void matmul(const Step& step, const Scalars&, const Worker& worker) {
  const MatmulRow& row = kMatmulRows[size_t(step.views.in[1].dtype)];
  const int64_t n_tokens = step.views.in[0].shape[0];
  if (n_tokens <= kFewTokens) {
    row.few[n_tokens - 1](step, worker);
  } else {
    many_tokens(step, worker, row.unpack);
  }
}

/// x to 16-bit integers, 32 to a scale.
inline void pack(const Step& step, const Scalars&, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const int64_t k = x.shape[1];
  int64_t begin, end;  // over all rows' groups
  worker.share(x.shape[0] * (k / 32), 8, begin, end);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i / (k / 32), g = i % (k / 32);
    const float* from = x.row<float>(t) + g * 32;
    const PackedRow row = PackedRow::at(step.packed, t, k);
    F32 largest{};
    F32 halves[2] = {};
    for (int j = 0; j < 32; j += kLanes) {
      const F32 v = load<F32>(from + j);
      largest = max(largest, abs(v));
      halves[j / 16] += v;
    }
    const float top = highest(largest), inverse = top > 0 ? 32767.0f / top : 0.0f;
    const float first = sum(halves[0]), second = sum(halves[1]);
    const_cast<float*>(row.scale_sum)[2 * g] = top / 32767.0f;
    const_cast<float*>(row.scale_sum)[2 * g + 1] = first + second;
    const_cast<float*>(row.half_sums)[2 * g] = first;
    const_cast<float*>(row.half_sums)[2 * g + 1] = second;
    typedef int16_t I16half __attribute__((vector_size(2 * kLanes)));
    for (int j = 0; j < 32; j += kLanes) {
      // Nearest integer by 1.5·2^23, as in exp: the same on every instruction set.
      const F32 nearest = (load<F32>(from + j) * inverse + 12582912.0f) - 12582912.0f;
      store(const_cast<int16_t*>(row.q) + g * 32 + j, __builtin_convertvector(__builtin_convertvector(nearest, I32), I16half));
    }
  }
}

}  // namespace sb::SB_ISA
