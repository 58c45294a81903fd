// Kernels of the quantiser (device/cpu/quantize_kernels.h).
#pragma once

#include <algorithm>

#include "device/cpu/kernels/panels-inl.h"
#include "device/cpu/quantize_kernels.h"
#include "device/cpu/simd.h"
#include "formats/decode.h"

namespace sb::SB_ISA {

// A product is cut into pieces of kSumPiece sums × kStripRows rows × one panel of two vectors of columns. Of a piece both sides are packed
// in the order in which the registers' block meets them: read in place, the rows of a wide matrix lie in the same few sets of the cache.
inline constexpr int64_t kSumPiece = 128, kStripRows = 96, kPanel = 2 * kLanes;
static_assert(kStripRows % kMicroRows == 0);

/// Σ_t a[t][r] · b[t][j]: one block of registers over packed sides.
struct ProductBlock {
  F32 sums[kMicroRows][2];
};
inline ProductBlock product_block(const float* a, const float* b, int64_t n_sum) {
  ProductBlock out = {};  // no reference to the caller's: what may be seen from elsewhere would be stored after every sum
  for (int64_t t = 0; t < n_sum; ++t) {
    const F32 b0 = load<F32>(b + t * kPanel), b1 = load<F32>(b + t * kPanel + kLanes);
    for (int r = 0; r < kMicroRows; ++r) {
      const F32 as = splat(a[t * kMicroRows + r]);
      out.sums[r][0] = mul_add(as, b0, out.sums[r][0]);
      out.sums[r][1] = mul_add(as, b1, out.sums[r][1]);
    }
  }
  return out;
}

/// Few rows: no packing pays.
inline void product_row(const Product& p, int64_t i) {
  const float* a = p.a + i * p.a_row;
  float* c = p.c + i * p.c_row;
  int64_t j = 0;
  constexpr int kVectors = 8;  // sums side by side: more than the latency of one
  for (; j + kVectors * kLanes <= p.n_columns; j += kVectors * kLanes) {
    F32 sums[kVectors] = {};
    for (int64_t t = 0; t < p.n_sum; ++t) {
      const F32 as = splat(a[t * p.a_step]);
      for (int v = 0; v < kVectors; ++v) sums[v] = mul_add(as, load<F32>(p.b + t * p.b_row + j + v * kLanes), sums[v]);
    }
    for (int v = 0; v < kVectors; ++v) store(c + j + v * kLanes, mul_add(sums[v], splat(p.sign), load<F32>(c + j + v * kLanes)));
  }
  for (; j + kLanes <= p.n_columns; j += kLanes) {
    F32 sums{};
    for (int64_t t = 0; t < p.n_sum; ++t) sums = mul_add(splat(a[t * p.a_step]), load<F32>(p.b + t * p.b_row + j), sums);
    store(c + j, mul_add(sums, splat(p.sign), load<F32>(c + j)));
  }
  for (; j < p.n_columns; ++j) {
    float sum = 0;
    for (int64_t t = 0; t < p.n_sum; ++t) sum += a[t * p.a_step] * p.b[t * p.b_row + j];
    c[j] += p.sign * sum;
  }
}

inline void product(const Product& p) {
  if (p.n_rows < 4) {
    for (int64_t i = 0; i < p.n_rows; ++i) product_row(p, i);
    return;
  }
  alignas(64) float a[kStripRows * kSumPiece], b[kPanel * kSumPiece], part[kMicroRows * kPanel];
  for (int64_t t0 = 0; t0 < p.n_sum; t0 += kSumPiece) {
    const int64_t n_sum = std::min(kSumPiece, p.n_sum - t0);
    for (int64_t i0 = 0; i0 < p.n_rows; i0 += kStripRows) {
      const int64_t n_rows = std::min(kStripRows, p.n_rows - i0);
      // a: [block of rows][sum][row]; rows past the end repeat the last one, and nobody reads what they give.
      for (int64_t i = 0; i < n_rows; i += kMicroRows) {
        for (int r = 0; r < kMicroRows; ++r) {
          const float* from = p.a + (i0 + std::min(i + r, n_rows - 1)) * p.a_row + t0 * p.a_step;
          float* to = a + i * kSumPiece + r;
          for (int64_t t = 0; t < n_sum; ++t) to[t * kMicroRows] = from[t * p.a_step];
        }
      }
      for (int64_t j = 0; j < p.n_columns; j += kPanel) {
        const int64_t n_columns = std::min(kPanel, p.n_columns - j);
        for (int64_t t = 0; t < n_sum; ++t) {
          const float* from = p.b + (t0 + t) * p.b_row + j;
          float* to = b + t * kPanel;
          if (n_columns == kPanel) {
            store(to, load<F32>(from));
            store(to + kLanes, load<F32>(from + kLanes));
          } else {
            for (int64_t l = 0; l < kPanel; ++l) to[l] = l < n_columns ? from[l] : 0.0f;
          }
        }
        for (int64_t i = 0; i < n_rows; i += kMicroRows) {
          const auto [sums] = product_block(a + i * kSumPiece, b, n_sum);
          float* c = p.c + (i0 + i) * p.c_row + j;
          const int64_t rows = std::min<int64_t>(kMicroRows, n_rows - i);
          if (n_columns == kPanel && rows == kMicroRows) {
            for (int r = 0; r < kMicroRows; ++r) {
              for (int v = 0; v < 2; ++v) {
                float* to = c + r * p.c_row + v * kLanes;
                store(to, mul_add(sums[r][v], splat(p.sign), load<F32>(to)));
              }
            }
          } else {
            for (int r = 0; r < kMicroRows; ++r) {
              for (int v = 0; v < 2; ++v) store(part + r * kPanel + v * kLanes, sums[r][v]);
            }
            for (int64_t r = 0; r < rows; ++r) {
              for (int64_t l = 0; l < n_columns; ++l) c[r * p.c_row + l] += p.sign * part[r * kPanel + l];
            }
          }
        }
      }
    }
  }
}

inline void axpy(float a, const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, mul_add(splat(a), load<F32>(x + i), load<F32>(y + i)));
  for (; i < n; ++i) y[i] += a * x[i];
}

inline float halve(const float* x, uint16_t* to, int64_t n) {
  float top = 0;
  F32 tops{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) tops = max(tops, abs(load<F32>(x + i)));
  top = highest(tops);
  for (; i < n; ++i) top = std::max(top, x[i] < 0 ? -x[i] : x[i]);
  if (!(top > 0)) top = 1;
  // 2^14 over the largest's power of two; the exponent alone, so that scaling rounds nothing.
  const uint32_t exponent = __builtin_bit_cast(uint32_t, top) >> 23;
  const float up = __builtin_bit_cast(float, std::min<uint32_t>(254 + 14 - std::clamp<uint32_t>(exponent, 15, 254), 254) << 23);
  for (i = 0; i + kLanes <= n; i += kLanes) store_half(to + i, load<F32>(x + i) * up);
  for (; i < n; ++i) to[i] = float_to_half(x[i] * up);
  return 1 / up;
}
inline void widen(const uint16_t* x, float scale, float* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load_half(x + i) * scale);
  for (; i < n; ++i) to[i] = half_to_f32(x[i]) * scale;
}

/// 4 × 4 blocks: lane l of out[r] of a 128-bit part is lane r of in[l] of that part.
inline void transpose_fours(const F32 (&in)[4], F32 (&out)[4]) {
  auto zip = []<int kStep, int kHigh>(F32 a, F32 b, std::integral_constant<int, kStep>, std::integral_constant<int, kHigh>) {
    // Runs of kStep lanes from the low or the high half of each part, a's and b's in turn.
    return [&]<int... kL>(std::integer_sequence<int, kL...>) {
      return __builtin_shufflevector(
          a, b, ((kL & ~3) + kHigh * 2 + kL % kStep + (kL & 3) / (2 * kStep) * kStep + ((kL / kStep) % 2 ? kLanes : 0))...);
    }(std::make_integer_sequence<int, kLanes>());
  };
  constexpr std::integral_constant<int, 0> low;
  constexpr std::integral_constant<int, 1> high, one;
  constexpr std::integral_constant<int, 2> two;
  const F32 a = zip(in[0], in[1], one, low), b = zip(in[2], in[3], one, low), c = zip(in[0], in[1], one, high),
            d = zip(in[2], in[3], one, high);
  out[0] = zip(a, b, two, low);
  out[1] = zip(a, b, two, high);
  out[2] = zip(c, d, two, low);
  out[3] = zip(c, d, two, high);
}

/// A code's values, split: state h·E + e (h: the oldest row's planes) has value oldest[h] + ends[e].
template <int kPlanes>
struct Trellis {
  static constexpr int kEnds = 4096 >> kPlanes, kOldest = 1 << kPlanes, kMiddles = kEnds >> kPlanes;
  F32 twice[kOldest], square[kOldest];  // 2·oldest[h], oldest[h]²
  const float* ends;                    // [kMiddles / kLanes][kOldest][kLanes]: of e = middle · kOldest + newest, lanes are middles

  /// `room`: kEnds floats.
  Trellis(const float* values, float* room) : ends(room) {
    for (int e = 0; e < kEnds; ++e) {
      const int middle = e >> kPlanes, newest = e & (kOldest - 1);
      // Values of all oldest planes cancel in pairs, because a plane's two signs are opposite.
      room[(middle / kLanes * kOldest + newest) * kLanes + middle % kLanes] = 0.5f * (values[e] + values[(kOldest - 1) * kEnds + e]);
    }
    for (int h = 0; h < kOldest; ++h) {
      const float oldest = 0.5f * (values[h * kEnds] - values[(kOldest - 1 - h) * kEnds]);
      twice[h] = splat(2 * oldest);
      square[h] = splat(oldest * oldest);
    }
  }
};

/// One row: next[e] = min over h of cost[h, e's middle] + (oldest[h] + s)², s = ends[e] − t. The minimum is over lines in s, so a
/// transition costs a product and a minimum: cost + oldest² is one number for all the newest planes, and s² is added after the minimum.
template <int kPlanes>
inline void trellis_row(const Trellis<kPlanes>& c, float t, const float* cost, float* next) {
  constexpr int kOldest = Trellis<kPlanes>::kOldest, kMiddles = Trellis<kPlanes>::kMiddles;
  const F32 target = splat(t);
  for (int middle = 0; middle < kMiddles; middle += kLanes) {
    F32 from[kOldest];
    for (int h = 0; h < kOldest; ++h) from[h] = load<F32>(cost + h * kMiddles + middle) + c.square[h];
    for (int newest = 0; newest < kOldest; newest += 4) {
      F32 s[4], best[4], turned[4];
      for (int n = 0; n < 4; ++n) {
        s[n] = load<F32>(c.ends + middle * kOldest + (newest + n) * kLanes) - target;
        best[n] = mul_add(c.twice[0], s[n], from[0]);
      }
      for (int h = 1; h < kOldest; ++h) {
        for (int n = 0; n < 4; ++n) best[n] = min(best[n], mul_add(c.twice[h], s[n], from[h]));
      }
      for (int n = 0; n < 4; ++n) best[n] = mul_add(s[n], s[n], best[n]);
      transpose_fours(best, turned);
      for (int lane = 0; lane < kLanes; ++lane) {
        const F32 v = turned[lane % 4];
        F32x4 four;
        std::memcpy(&four, reinterpret_cast<const char*>(&v) + lane / 4 * 16, 16);
        store(next + (middle + lane) * kOldest + newest, four);
      }
    }
  }
}

/// The state before a row that leads to end state `end` most cheaply: the same choice that trellis_row's minimum was.
template <int kPlanes>
inline int best_state(const float* values, float t, const float* cost, int end) {
  constexpr int kEnds = 4096 >> kPlanes, kOldest = 1 << kPlanes;
  int best = end;
  float least = 3e38f;
  for (int h = 0; h < kOldest; ++h) {
    const int state = h * kEnds + end;
    const float off = values[state] - t, total = off * off + cost[state >> kPlanes];
    if (total < least) {
      least = total;
      best = state;
    }
  }
  return best;
}

template <int kPlanes>
inline void viterbi_segment(const ViterbiTask& task, const Trellis<kPlanes>& trellis, int64_t segment) {
  constexpr int kEnds = 4096 >> kPlanes;
  const int64_t n = task.segment;
  const float* target = task.target + segment * n;
  auto cost = [&](int64_t i) { return task.history + i * kEnds; };
  // First, what the state is where the segment closes: a run around row 0 with free ends. A code forgets what lies several times its
  // memory (at most 6 rows) away, so kSide rows on each side are enough, where the definition takes half the segment.
  constexpr int64_t kSide = 48;
  const int64_t side = std::min(kSide, n / 2);
  auto around = [&](int64_t i) { return target[(n - side + i) % n]; };
  std::fill_n(cost(0), kEnds, 0.0f);
  for (int64_t i = 0; i < 2 * side; ++i) trellis_row(trellis, around(i), cost(i), cost(i + 1));
  const float* last = cost(2 * side);
  int end = int(std::min_element(last, last + kEnds) - last);
  for (int64_t i = 2 * side - 1; i >= side; --i) end = best_state<kPlanes>(task.values, around(i), cost(i), end) >> kPlanes;

  // Then the segment, with that state forced at both ends.
  std::fill_n(cost(0), kEnds, 1e30f);
  cost(0)[end] = 0;
  for (int64_t i = 0; i < n; ++i) trellis_row(trellis, target[i], cost(i), cost(i + 1));
  for (int64_t i = n - 1; i >= 0; --i) {
    const int state = best_state<kPlanes>(task.values, target[i], cost(i), end);
    task.coded[segment * n + i] = task.values[state];
    task.bits[segment * n + i] = uint8_t(state & ((1 << kPlanes) - 1));
    end = state >> kPlanes;
  }
}

template <int kPlanes>
inline void viterbi_planes(const ViterbiTask& task) {
  const Trellis<kPlanes> trellis(task.values, task.history + (task.segment + 1) * (4096 >> kPlanes));
  for (int64_t segment = 0; segment < task.n_segments; ++segment) viterbi_segment(task, trellis, segment);
}

inline void viterbi(const ViterbiTask& task) {
  if (task.n_planes == 2) return viterbi_planes<2>(task);
  if (task.n_planes == 3) return viterbi_planes<3>(task);
  viterbi_planes<4>(task);
}

}  // namespace sb::SB_ISA
