// The matmul over every stored type. Few tokens: the weights are read where they lie, 32 at a time, and met with 16-bit activations.
// Many tokens: a tile of rows is unpacked once, to bytes (tiles-inl.h) or to float32 (panels-inl.h), and met with all tokens.
#pragma once

#include <algorithm>
#include <type_traits>

#include "device/cpu/kernel.h"
#include "device/cpu/kernels/panels-inl.h"
#include "device/cpu/kernels/planes-inl.h"
#include "device/cpu/kernels/tiles-inl.h"
#include "device/cpu/simd.h"
#include "formats/gguf-inl.h"

namespace sb::SB_ISA {

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
inline void unpack(const std::byte* row, int64_t first, int64_t n, float* to) {
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
/// Rows [row0, row0 + n_rows) and columns [first, first + n) of a weight to floats, rows kTileColumns apart.
using Unpack = void (*)(const TensorView& w, int64_t row0, int64_t n_rows, int64_t first, int64_t n, float* to);
template <auto kUnpackRow>
void unpack_rows(const TensorView& w, int64_t row0, int64_t n_rows, int64_t first, int64_t n, float* to) {
  for (int64_t r = 0; r < n_rows; ++r) kUnpackRow(w.row_bytes_at(row0 + r), first, n, to + r * kTileColumns);
}

/// The kernels of one stored type. Many tokens meet in bytes where the type's codes allow it, else in float32.
struct MatmulRow {
  void (*few[kFewTokens])(const Step&, const Worker&);  // by tokens − 1
  Unpack unpack;
  TileKernels tiles;  // none where bytes do not fit, or are not asked for
};
template <Dtype D>
constexpr MatmulRow matmul_row() {
  if constexpr (tiles_fit<D>()) {
    return {{few_tokens<D, 1>, few_tokens<D, 2>, few_tokens<D, 3>}, unpack_rows<unpack<D>>, tile_kernels<D>()};
  } else if constexpr (dtype_row(D).block > 1) {
    return {{few_tokens<D, 1>, few_tokens<D, 2>, few_tokens<D, 3>}, unpack_rows<unpack<D>>, {}};
  } else if constexpr (D != Dtype::kI32 && D != Dtype::kU8 && D != Dtype::kPlanes) {
    return {{few_tokens_plain<1>, few_tokens_plain<2>, few_tokens_plain<3>}, unpack_rows<unpack_plain<D>>, {}};
  } else {
    return {};
  }
}

inline constexpr MatmulRow kMatmulRows[] = {
#define SB_ROW(name, gguf, block, bytes) matmul_row<Dtype::k##name>(),
    SB_DTYPES(SB_ROW)
#undef SB_ROW
};

/// What a matmul makes of its input before it multiplies.
inline PackedForm packed_form(const TensorView& weight, int64_t n_tokens, bool exact) {
  if (weight.planes) return PackedForm::kTables;
  if (n_tokens > kFewTokens) return kMatmulRows[size_t(weight.dtype)].tiles.unpack && !exact ? PackedForm::kTiles : PackedForm::kPanels;
  return dtype_row(weight.dtype).block > 1 ? PackedForm::kRows : PackedForm::kNone;
}

inline PackedForm form_of(const Step& step) {
  return packed_form(step.views.in[1], step.views.in[0].shape[0], std::get<MatMul>(*step.op).exact);
}

inline void matmul(const Step& step, const Scalars&, const Worker& worker) {
  const TensorView& weight = step.views.in[1];
  const int64_t n_tokens = step.views.in[0].shape[0];
  if (weight.planes) return planes_matmul(step, worker);
  const MatmulRow& row = kMatmulRows[size_t(weight.dtype)];
  if (n_tokens <= kFewTokens) return row.few[n_tokens - 1](step, worker);
  if (form_of(step) == PackedForm::kTiles) return many_tokens_bytes(step, worker, row.tiles);
  many_tokens(step, worker, row.unpack);
}

inline int64_t packed_bytes(PackedForm form, const TensorView& weight, int64_t n_tokens, int64_t k) {
  switch (form) {
    case PackedForm::kNone:
      return 0;
    case PackedForm::kRows:
      return n_tokens * PackedRow::n_bytes(k);
    case PackedForm::kPanels:
      return panel_floats(n_tokens, k) * 4;
    case PackedForm::kTiles:
      return packed_tile_bytes(n_tokens, k);
    case PackedForm::kTables:
      return packed_plane_bytes(*weight.planes, n_tokens);
  }
}

inline void pack_rows(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const int64_t k = x.shape[1];
  int64_t begin, end;  // over all rows' groups
  worker.share(x.shape[0] * (k / 32), 8, begin, end);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = i / (k / 32), g = i % (k / 32);
    pack_group(x.row<float>(t) + g * 32, PackedRow::at(step.packed, t, k), g);
  }
}

inline void pack(const Step& step, const Scalars&, const Worker& worker) {
  switch (form_of(step)) {
    case PackedForm::kNone:
      return;
    case PackedForm::kRows:
      return pack_rows(step, worker);
    case PackedForm::kPanels:
      return pack_panels(step, worker);
    case PackedForm::kTiles:
      return pack_tiles(step, worker);
    case PackedForm::kTables:
      return pack_planes(step, worker);
  }
}

}  // namespace sb::SB_ISA
