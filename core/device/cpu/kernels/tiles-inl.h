// The many-token matmul over block types in 8-bit integers: a tile of weights is unpacked to codes without a sign, and meets activations
// of 8 bits with a scale per 32. Tokens are the lanes, four inputs a lane; a group's sum is exact, and goes into float32 with both scales:
//
//   y[t] = Σ_groups d · sx[t] · Σ u · xq[t] + m · sx[t] · Σ xq[t],   weight = d · u + m
//
// The activations' rounding costs 3e-5 of the answer's power, what llama.cpp's own kernels lose.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/cpu/kernel.h"
#include "device/cpu/kernels/panels-inl.h"
#include "device/cpu/simd.h"
#include "formats/gguf-inl.h"

namespace sb::SB_ISA {

/// Whether a type's codes fit the instruction set's product of bytes: 6 bits, so that a pair of products stays in 16 bits with room for
/// one more; all 8 where products add up in 32.
template <Dtype D>
constexpr bool tiles_fit() {
  if constexpr (dtype_row(D).block > 1) { return GroupDecoder<D>::kHighest - GroupDecoder<D>::kLowest < (kDotsAreWide ? 256 : 64); }
  return false;
}

/// Activations of one panel and one group of 32 inputs: bytes [8][tokens][4], then scales and sums [tokens].
struct TilePanel {
  int64_t width;  // tokens
  const int8_t* bytes;
  const float *scale, *half_sums[2], *sum;  // sx; sx · Σ xq of 16, of the other 16, of all
  static int64_t group_bytes(int64_t width) { return width * (32 + 4 * 4); }
  static TilePanel at(const std::byte* base, int64_t panel, int64_t group, int64_t n_groups, int64_t width) {
    const std::byte* p = base + (panel * n_groups + group) * group_bytes(width);
    const float* floats = reinterpret_cast<const float*>(p + 32 * width);
    return {width, reinterpret_cast<const int8_t*>(p), floats, {floats + width, floats + 2 * width}, floats + 3 * width};
  }
};
inline int64_t packed_tile_bytes(int64_t n_tokens, int64_t k) {
  const int64_t width = panel_width(n_tokens);
  return (n_tokens + width - 1) / width * (k / 32) * TilePanel::group_bytes(width);
}

/// 32 of one token, or zeros, to its lane of a panel. What is no number among them makes the scale one that is none.
inline void pack_lane(const float* from, const TilePanel& to, int64_t lane) {
  float scale = 0, sums[2] = {};
  alignas(64) int32_t q[32] = {};
  if (from) {
    const auto [top, is_finite] = largest_of_32(from);
    const float inverse = is_finite && top > 1e-30f ? 127.0f / top : 0.0f;
    scale = !is_finite ? std::numeric_limits<float>::quiet_NaN() : top > 1e-30f ? top / 127.0f : 0.0f;
    for (int j = 0; is_finite && j < 32; j += kLanes) {
      // Nearest integer by 1.5·2^23, as in exp.
      const F32 nearest = (load<F32>(from + j) * inverse + kToNearest) - kToNearest;
      store(q + j, __builtin_convertvector(nearest, I32));
    }
    int totals[2] = {};
    for (int j = 0; j < 32; ++j) totals[j / 16] += q[j];
    for (int h = 0; h < 2; ++h) sums[h] = scale * float(totals[h]);
  }
  for (int j = 0; j < 32; ++j) const_cast<int8_t*>(to.bytes)[(j / 4 * to.width + lane) * 4 + j % 4] = int8_t(q[j]);
  const_cast<float*>(to.scale)[lane] = scale;
  for (int h = 0; h < 2; ++h) const_cast<float*>(to.half_sums[h])[lane] = sums[h];
  const_cast<float*>(to.sum)[lane] = sums[0] + sums[1];
}
inline void pack_tiles(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const int64_t n_tokens = x.shape[0], width = panel_width(n_tokens), n_panels = (n_tokens + width - 1) / width, n_groups = x.shape[1] / 32;
  for (int64_t i = worker.part; i < n_panels * n_groups; i += worker.n_parts) {
    const int64_t panel = i / n_groups, group = i % n_groups;
    const TilePanel to = TilePanel::at(step.packed, panel, group, n_groups, width);
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t t = panel * width + lane;
      pack_lane(t < n_tokens ? x.row<float>(t) + group * 32 : nullptr, to, lane);
    }
  }
}

/// Rows that meet a panel together; a tile of them, unpacked: codes, and d and m of each 32 (of each 16 in split types).
inline constexpr int kDotRows = kLanes == 16 ? 6 : 4;
inline constexpr int64_t kDotTileRows = 24;
struct CodeTile {
  alignas(64) uint8_t codes[kDotTileRows][kTileColumns];
  float d[kDotTileRows][kTileColumns / 16], m[kDotTileRows][kTileColumns / 16];
};

template <Dtype D>
inline void unpack_codes(const uint8_t* row, int64_t first, int64_t n, int64_t r, CodeTile& tile) {
  using Decoder = GroupDecoder<D>;
  constexpr int kParts = Decoder::kSplit ? 2 : 1;
  static_assert(kTileColumns == 32 * kChunk);
  ChunkScales s;
  chunk_scales<D>(row, first / 32, int(n / 32), s);
  for (int p = 0; p < kParts; ++p) {
    store(&tile.d[r][kChunk * p], s.d[p]);
    store(&tile.m[r][kChunk * p], offsets<D>(s, p));
  }
  for (int64_t i = 0; i < n; i += 32) store(&tile.codes[r][i], Decoder::codes(row, (first + i) / 32));
}

/// Where a tile meets a panel.
struct TileMeeting {
  const CodeTile& tile;
  const std::byte* packed;
  int64_t panel, first_group, n_groups, groups_per_row;  // of the panel's inputs: those of this tile
};

/// sums[r][panel] += what kDotRows rows of a tile, from `row` on, give. kParts: groups of 32 or of 16. kInLane: how many products may add
/// up before they are widened.
template <int kParts, int kInLane, int kVectors>
void dot_tile(const TileMeeting& at, int64_t row, float* sums, int64_t stride) {
  constexpr int kSteps = 8 / kParts;
  for (int64_t g = 0; g < at.n_groups; ++g) {
    const TilePanel x = TilePanel::at(at.packed, at.panel, at.first_group + g, at.groups_per_row, int64_t(kVectors) * kLanes);
    for (int part = 0; part < kParts; ++part) {
      I32 total[kDotRows][kVectors] = {};
      for (int begin = 0; begin < kSteps; begin += kInLane) {
        ByteSums lanes[kDotRows][kVectors] = {};
#if defined(__wasm__)
#pragma clang loop unroll(disable)  // the compiler would mix the steps, and no register file holds that
#endif
        for (int s = begin; s < begin + kInLane; ++s) {
          const int64_t step = part * kSteps + s;
          I8 xs[kVectors];
          for (int v = 0; v < kVectors; ++v) xs[v] = load<I8>(x.bytes + (step * kVectors + v) * int64_t(sizeof(I8)));
          for (int r = 0; r < kDotRows; ++r) {
            const U8 w = U8(I32{} + load<int32_t>(&at.tile.codes[row + r][g * 32 + step * 4]));
            for (int v = 0; v < kVectors; ++v) lanes[r][v] = dot_bytes(w, xs[v], lanes[r][v]);
          }
        }
        for (int r = 0; r < kDotRows; ++r) {
          for (int v = 0; v < kVectors; ++v) total[r][v] += wide_sums(lanes[r][v]);
        }
      }
      for (int v = 0; v < kVectors; ++v) {
        const F32 scale = load<F32>(x.scale + v * kLanes), x_sum = load<F32>((kParts == 2 ? x.half_sums[part] : x.sum) + v * kLanes);
        for (int r = 0; r < kDotRows; ++r) {
          float* to = sums + r * stride + v * kLanes;
          const F32 y = mul_add(to_f32(total[r][v]), scale * at.tile.d[row + r][g * kParts + part], load<F32>(to));
          store(to, mul_add(x_sum, splat(at.tile.m[row + r][g * kParts + part]), y));
        }
      }
    }
  }
}

struct TileScratch {
  static int64_t n_bytes(int64_t n_tokens) { return int64_t(sizeof(CodeTile)) + 4 * kDotTileRows * panel_floats(n_tokens, 1); }
};

/// What is a type's own: how a row is unpacked, and how its tile meets a panel of one vector of tokens, of two.
struct TileKernels {
  void (*unpack)(const uint8_t* row, int64_t first, int64_t n, int64_t r, CodeTile& tile);
  void (*dot[2])(const TileMeeting& at, int64_t row, float* sums, int64_t stride);
};
template <Dtype D>
constexpr TileKernels tile_kernels() {
  using Decoder = GroupDecoder<D>;
  constexpr int kParts = Decoder::kSplit ? 2 : 1, kSteps = 8 / kParts;
  // A pair of products in a lane of 16 bits is at most 2 · 127 · the largest code.
  constexpr int kFit = kDotsAreWide ? kSteps : 32767 / (2 * 127 * (Decoder::kHighest - Decoder::kLowest));
  constexpr int kInLane = kFit >= kSteps ? kSteps : kFit >= 4 ? 4 : 2;
  return {unpack_codes<D>, {dot_tile<kParts, kInLane, 1>, dot_tile<kParts, kInLane, 2>}};
}

inline void many_tokens_bytes(const Step& step, const Worker& worker, const TileKernels& kernels) {
  const TensorView& w = step.views.in[1];
  const MutableTensorView& out = step.views.out;
  const int64_t n_tokens = out.shape[0], k = w.shape[1], width = panel_width(n_tokens), n_panels = (n_tokens + width - 1) / width,
                stride = n_panels * width;
  CodeTile& tile = *reinterpret_cast<CodeTile*>(worker.scratch);
  float* sums = reinterpret_cast<float*>(worker.scratch + sizeof(CodeTile));  // [kDotTileRows, stride]
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  int64_t begin, end;
  worker.share(w.shape[0], kDotTileRows, begin, end);
  for (int64_t row0 = begin; row0 < end; row0 += kDotTileRows) {
    // Rows past the end keep old codes, and nobody reads what they give.
    const int64_t n_rows = std::min(kDotTileRows, end - row0);
    std::fill_n(sums, kDotTileRows * stride, 0.0f);
    for (int64_t first = 0; first < k; first += kTileColumns) {
      const int64_t n = std::min(kTileColumns, k - first);
      for (int64_t r = 0; r < n_rows; ++r) kernels.unpack(reinterpret_cast<const uint8_t*>(w.row_bytes_at(row0 + r)), first, n, r, tile);
      for (int64_t p = 0; p < n_panels; ++p) {
        const TileMeeting at{tile, step.packed, p, first / 32, n / 32, k / 32};
        for (int64_t r = 0; r < n_rows; r += kDotRows) kernels.dot[width == kLanes ? 0 : 1](at, r, sums + r * stride + p * width, stride);
      }
    }
    for (int64_t t = 0; t < n_tokens; ++t) {
      float* to = out.row<float>(t) + row0;
      for (int64_t r = 0; r < n_rows; ++r) to[r] = sums[r * stride + t] + (bias ? bias[row0 + r] : 0.0f);
    }
  }
}

}  // namespace sb::SB_ISA
