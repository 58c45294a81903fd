// The matmul over every stored type. Few tokens: the weights are read where they lie and met with 16-bit activations (few-inl.h).
// Many tokens: a tile of rows is unpacked once, to bytes (tiles-inl.h) or to float32 (panels-inl.h), and met with all tokens.
#pragma once

#include <algorithm>

#include "device/cpu/kernel.h"
#include "device/cpu/kernels/few-inl.h"
#include "device/cpu/kernels/panels-inl.h"
#include "device/cpu/kernels/planes-inl.h"
#include "device/cpu/kernels/tiles-inl.h"
#include "device/cpu/simd.h"
#include "formats/gguf-inl.h"

namespace sb::SB_ISA {

/// Unpacks columns [first, first + n) of one row to floats; both are multiples of 32 for block types.
template <Dtype D>
inline void unpack(const std::byte* row, int64_t first, int64_t n, float* to) {
  using Decoder = GroupDecoder<D>;
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(row);
  ChunkScales s;
  chunk_scales<D>(bytes, first / 32, int(n / 32), s);
  for (int64_t i = 0; i < n; i += 16) {
    const U8x32 codes = Decoder::codes(bytes, (first + i) / 32) + uint8_t(Decoder::kLowest);
    const int64_t at = Decoder::kSplit ? i / 16 : i / 32;
    const F32 d = splat(s.d[at / kChunk][at % kChunk]), m = Decoder::kHasMin ? splat(s.m[at / kChunk][at % kChunk]) : F32{};
    scale_to_f32(I8x16(half_of(codes, int(i / 16 % 2))), d, m, to + i);
  }
}
template <Dtype D>
void unpack_plain(const std::byte* row, int64_t first, int64_t n, float* to) {
  constexpr int64_t element = dtype_row(D).bytes_per_block;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load_plain<D>(row + (first + i) * element));
  for (; i < n; ++i) to[i] = load_plain_one<D>(row + (first + i) * element);
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
    return {{few_tokens_plain<D, 1>, few_tokens_plain<D, 2>, few_tokens_plain<D, 3>}, unpack_rows<unpack_plain<D>>, {}};
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
  const int block = dtype_row(weight.dtype).block;
  if (block == 1) return PackedForm::kNone;
  return block > 32 && kWidenedOrder[1] != 1 ? PackedForm::kMixed : PackedForm::kRows;
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
    case PackedForm::kMixed:
      return n_tokens * PackedRow::n_bytes(k);
    case PackedForm::kPanels:
      return panel_floats(n_tokens, k) * 4;
    case PackedForm::kTiles:
      return packed_tile_bytes(n_tokens, k);
    case PackedForm::kTables:
      return packed_plane_bytes(*weight.planes, n_tokens);
  }
}

inline void pack(const Step& step, const Scalars&, const Worker& worker) {
  switch (form_of(step)) {
    case PackedForm::kNone:
      return;
    case PackedForm::kRows:
      return pack_rows(step, worker, false);
    case PackedForm::kMixed:
      return pack_rows(step, worker, true);
    case PackedForm::kPanels:
      return pack_panels(step, worker);
    case PackedForm::kTiles:
      return pack_tiles(step, worker);
    case PackedForm::kTables:
      return pack_planes(step, worker);
  }
}

}  // namespace sb::SB_ISA
