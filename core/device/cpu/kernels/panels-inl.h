// The many-token matmul, y = x · Wᵀ: tokens are the lanes. x lies in panels [K][tokens of a panel], weights are unpacked to floats a tile
// at a time and met as single numbers, so that no sum runs across lanes.
#pragma once

#include <algorithm>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"

namespace sb::SB_ISA {

/// A tile of unpacked weights. A register block is kMicroRows rows × 2 vectors of tokens: what the registers hold (AVX-512 has 32).
/// 256 columns: a block's rows (6 KiB) and a panel's piece (16 KiB with AVX2) stay in the first-level cache while the tile is met.
inline constexpr int kMicroRows = kLanes == 16 ? 12 : 6;
inline constexpr int64_t kTileRows = 24, kTileColumns = 256;

/// Tokens of a panel: two vectors, or one where that holds them all.
inline int64_t panel_width(int64_t n_tokens) { return n_tokens <= kLanes ? kLanes : 2 * kLanes; }
inline int64_t panel_floats(int64_t n_tokens, int64_t k) {
  const int64_t width = panel_width(n_tokens);
  return (n_tokens + width - 1) / width * width * k;
}

struct ManyScratch {
  float *weights, *sums;  // [kTileRows, kTileColumns], [kTileRows, tokens rounded up to panels]
  static int64_t n_floats(int64_t n_tokens) { return kTileRows * kTileColumns + kTileRows * panel_floats(n_tokens, 1); }
};

/// sums[r][panel] += Σ w[r][k] · x[k] for kMicroRows rows and one panel of kVectors vectors, over n columns.
template <int kVectors>
inline void micro(const float* w, const float* x, int64_t n, float* sums, int64_t stride, bool is_first) {
  F32 acc[kMicroRows][kVectors];
  for (int r = 0; r < kMicroRows; ++r) {
    for (int v = 0; v < kVectors; ++v) acc[r][v] = is_first ? F32{} : load<F32>(sums + r * stride + v * kLanes);
  }
  for (int64_t k = 0; k < n; ++k) {
    F32 xs[kVectors];
    for (int v = 0; v < kVectors; ++v) xs[v] = load<F32>(x + (k * kVectors + v) * kLanes);
    for (int r = 0; r < kMicroRows; ++r) {
      const F32 ws = splat(w[r * kTileColumns + k]);
      for (int v = 0; v < kVectors; ++v) acc[r][v] = mul_add(ws, xs[v], acc[r][v]);
    }
  }
  for (int r = 0; r < kMicroRows; ++r) {
    for (int v = 0; v < kVectors; ++v) store(sums + r * stride + v * kLanes, acc[r][v]);
  }
}

template <class Unpack>
inline void many_tokens(const Step& step, const Worker& worker, Unpack unpack_tile) {
  const TensorView& w = step.views.in[1];
  const MutableTensorView& out = step.views.out;
  const int64_t n_tokens = out.shape[0], k = w.shape[1];
  const int64_t width = panel_width(n_tokens), n_panels = (n_tokens + width - 1) / width, stride = n_panels * width;
  const float* panels = reinterpret_cast<const float*>(step.packed);
  ManyScratch s;
  s.weights = reinterpret_cast<float*>(worker.scratch);
  s.sums = s.weights + kTileRows * kTileColumns;
  const float* bias = step.views.has[2] ? step.views.in[2].row<float>(0) : nullptr;
  int64_t begin, end;
  worker.share(w.shape[0], kTileRows, begin, end);
  for (int64_t row0 = begin; row0 < end; row0 += kTileRows) {
    // Rows past the end keep old numbers, and nobody reads what they give.
    const int64_t n_rows = std::min(kTileRows, end - row0);
    for (int64_t first = 0; first < k; first += kTileColumns) {
      const int64_t n = std::min(kTileColumns, k - first);
      unpack_tile(w, row0, n_rows, first, n, s.weights);
      for (int64_t p = 0; p < n_panels; ++p) {
        const float* x = panels + (p * k + first) * width;
        for (int64_t r = 0; r < n_rows; r += kMicroRows) {
          float* sums = s.sums + r * stride + p * width;
          if (width == kLanes) {
            micro<1>(s.weights + r * kTileColumns, x, n, sums, stride, first == 0);
          } else {
            micro<2>(s.weights + r * kTileColumns, x, n, sums, stride, first == 0);
          }
        }
      }
    }
    for (int64_t t = 0; t < n_tokens; ++t) {
      float* to = out.row<float>(t) + row0;
      for (int64_t r = 0; r < n_rows; ++r) to[r] = s.sums[r * stride + t] + (bias ? bias[row0 + r] : 0.0f);
    }
  }
}

/// x to panels.
inline void pack_panels(const Step& step, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  const int64_t k = x.shape[1], n_tokens = x.shape[0], width = panel_width(n_tokens), n_panels = (n_tokens + width - 1) / width;
  constexpr int64_t kColumns = 64;
  const int64_t n_blocks = (k + kColumns - 1) / kColumns;
  for (int64_t i = worker.part; i < n_panels * n_blocks; i += worker.n_parts) {
    const int64_t panel = i / n_blocks, first = i % n_blocks * kColumns, n = std::min(kColumns, k - first);
    float* to = reinterpret_cast<float*>(step.packed) + (panel * k + first) * width;
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t t = panel * width + lane;
      for (int64_t j = 0; j < n; ++j) to[j * width + lane] = t < n_tokens ? x.row<float>(t)[first + j] : 0.0f;
    }
  }
}

}  // namespace sb::SB_ISA
