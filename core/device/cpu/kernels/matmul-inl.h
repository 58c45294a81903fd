// The matmul over every stored type. Few tokens: the weights are read where they lie, 32 at a time, and met with 16-bit activations.
// Many tokens: a tile of rows is unpacked once to float32 and met with all tokens.
#pragma once

#include <algorithm>

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

/// y[t] = row · x[t] for kTokens tokens.
template <Dtype D, int kTokens>
inline void dot_row(const uint8_t* row, int64_t k, const PackedRow* x, float* y) {
  using Decoder = GroupDecoder<D>;
  F32 acc[kTokens] = {};
  float mins[kTokens] = {};
  for (int64_t g = 0; g < k / 32; ++g) {
    I8x16 low, high;
    GroupScales s;
    Decoder::decode(row, g, low, high, s);
    const Group w = widen(low, high);
    for (int t = 0; t < kTokens; ++t) {
      const int16_t* q = x[t].q + g * 32;
      const float scale = x[t].scale[g];
      if constexpr (Decoder::kSplit && kLanes == 16) {
        // Both halves lie in one vector: the first 8 lanes of sums belong to half 0.
        const I32 all = dot(w.v[0], load<I16>(q), I32{});
        typedef float F8 __attribute__((vector_size(32)));
        const F8 a = F8{} + s.d[0] * scale, b = F8{} + s.d[1] * scale;
        acc[t] = mul_add(to_f32(all), __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), acc[t]);
      } else if constexpr (Decoder::kSplit) {
        for (int h = 0; h < 2; ++h) {
          I32 half{};
          for (int i = 0; i < Group::kVectors / 2; ++i) {
            const int at = h * (Group::kVectors / 2) + i;
            half = dot(w.v[at], load<I16>(q + at * 2 * kLanes), half);
          }
          acc[t] = mul_add(to_f32(half), splat(s.d[h] * scale), acc[t]);
        }
      } else {
        I32 all{};
        for (int i = 0; i < Group::kVectors; ++i) all = dot(w.v[i], load<I16>(q + i * 2 * kLanes), all);
        acc[t] = mul_add(to_f32(all), splat(s.d[0] * scale), acc[t]);
      }
      if constexpr (Decoder::kHasMin) {
        const float* sums = x[t].sums + 2 * g;
        mins[t] += Decoder::kSplit ? s.m[0] * sums[0] + s.m[1] * sums[1] : s.m[0] * (sums[0] + sums[1]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) y[t] = sum(acc[t]) + mins[t];
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
  for (int64_t n = begin; n < end; ++n) {
    float y[kTokens];
    dot_row<D, kTokens>(reinterpret_cast<const uint8_t*>(w.row_bytes_at(n)), k, x, y);
    for (int t = 0; t < kTokens; ++t) step.views.out.row<float>(t)[n] = y[t] + (bias ? bias[n] : 0.0f);
  }
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
    GroupScales s;
    Decoder::decode(reinterpret_cast<const uint8_t*>(row), (first + i) / 32, low, high, s);
    scale_to_f32(low, splat(s.d[0]), Decoder::kHasMin ? splat(s.m[0]) : F32{}, to + i);
    scale_to_f32(high, splat(s.d[Decoder::kSplit]), Decoder::kHasMin ? splat(s.m[Decoder::kSplit]) : F32{}, to + i + 16);
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
    const_cast<float*>(row.scale)[g] = top / 32767.0f;
    const_cast<float*>(row.sums)[2 * g] = sum(halves[0]);
    const_cast<float*>(row.sums)[2 * g + 1] = sum(halves[1]);
    typedef int16_t I16half __attribute__((vector_size(2 * kLanes)));
    for (int j = 0; j < 32; j += kLanes) {
      // Nearest integer by 1.5·2^23, as in exp: the same on every instruction set.
      const F32 nearest = (load<F32>(from + j) * inverse + 12582912.0f) - 12582912.0f;
      store(const_cast<int16_t*>(row.q) + g * 32 + j, __builtin_convertvector(__builtin_convertvector(nearest, I32), I16half));
    }
  }
}

}  // namespace sb::SB_ISA
