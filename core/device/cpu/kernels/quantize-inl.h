// Kernels of the quantiser (device/cpu/quantize_kernels.h).
#pragma once

#include <algorithm>

#include "device/cpu/kernels/panels-inl.h"
#include "device/cpu/quantize_kernels.h"
#include "device/cpu/simd.h"

namespace sb::SB_ISA {

template <int kRows, int kVectors>
inline void product_block(const Product& p, int64_t i, int64_t j, int64_t begin, int64_t end) {
  F32 acc[kRows][kVectors] = {};
  const float* a = p.a + i * p.a_row;
  const float* b = p.b + j;
  for (int64_t t = begin; t < end; ++t) {
    F32 bs[kVectors];
    for (int v = 0; v < kVectors; ++v) bs[v] = load<F32>(b + t * p.b_row + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const F32 as = splat(a[r * p.a_row + t * p.a_step]);
      for (int v = 0; v < kVectors; ++v) acc[r][v] = mul_add(as, bs[v], acc[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float* c = p.c + (i + r) * p.c_row + j;
    for (int v = 0; v < kVectors; ++v) store(c + v * kLanes, load<F32>(c + v * kLanes) + acc[r][v] * p.sign);
  }
}
template <int kVectors>
inline void product_columns(const Product& p, int64_t j, int64_t begin, int64_t end) {
  int64_t i = 0;
  for (; i + kMicroRows <= p.n_rows; i += kMicroRows) product_block<kMicroRows, kVectors>(p, i, j, begin, end);
  for (; i < p.n_rows; ++i) product_block<1, kVectors>(p, i, j, begin, end);
}

inline void product(const Product& p) {
  // A piece of b (128 sums × 2 vectors) stays in the first-level cache while all rows meet it.
  constexpr int64_t kPiece = 128;
  for (int64_t begin = 0; begin < p.n_sum; begin += kPiece) {
    const int64_t end = std::min(p.n_sum, begin + kPiece);
    int64_t j = 0;
    for (; j + 2 * kLanes <= p.n_columns; j += 2 * kLanes) product_columns<2>(p, j, begin, end);
    for (; j + kLanes <= p.n_columns; j += kLanes) product_columns<1>(p, j, begin, end);
    for (; j < p.n_columns; ++j) {
      for (int64_t i = 0; i < p.n_rows; ++i) {
        float sum = 0;
        for (int64_t t = begin; t < end; ++t) sum += p.a[i * p.a_row + t * p.a_step] * p.b[t * p.b_row + j];
        p.c[i * p.c_row + j] += p.sign * sum;
      }
    }
  }
}

inline void axpy(float a, const float* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, mul_add(splat(a), load<F32>(x + i), load<F32>(y + i)));
  for (; i < n; ++i) y[i] += a * x[i];
}

/// Lanes e … e + kLanes − 1 of cost[e >> kPlanes]: each cost stands for 2^kPlanes neighbouring states.
template <int kPlanes>
inline F32 spread_costs(const float* cost) {
  constexpr int kEach = 1 << kPlanes;
  if constexpr (kEach >= kLanes) {
    return splat(cost[0]);
  } else {
    return [cost]<int... kL>(std::integer_sequence<int, kL...>) {
      typedef float Few __attribute__((vector_size(4 * kLanes / kEach)));
      const Few few = load<Few>(cost);
      return __builtin_shufflevector(few, few, (kL / kEach)...);
    }(std::make_integer_sequence<int, kLanes>());
  }
}

/// One row of the trellis: next[e] = min over h of cost[(h·E + e) >> P] + v² − 2·t·v with v = values[h·E + e]. The t² that is missing
/// is the same for every path.
template <int kPlanes, int kSegments>
inline void trellis_row(const float* values, const float* squares, const float (&t)[kSegments], const float* const (&cost)[kSegments],
                        float* const (&next)[kSegments]) {
  constexpr int kEnds = 4096 >> kPlanes, kOldest = 1 << kPlanes, kStep = kEnds >> kPlanes;
  F32 twice[kSegments];
  for (int s = 0; s < kSegments; ++s) twice[s] = splat(-2 * t[s]);
  for (int e = 0; e < kEnds; e += kLanes) {
    F32 best[kSegments];
    for (int h = 0; h < kOldest; ++h) {
      const F32 v = load<F32>(values + h * kEnds + e), square = load<F32>(squares + h * kEnds + e);
      for (int s = 0; s < kSegments; ++s) {
        const F32 total = mul_add(v, twice[s], square) + spread_costs<kPlanes>(cost[s] + h * kStep + (e >> kPlanes));
        best[s] = h ? min(best[s], total) : total;
      }
    }
    for (int s = 0; s < kSegments; ++s) store(next[s] + e, best[s]);
  }
}

/// The state before row i that leads to end state `end` most cheaply: the same choice that trellis_row's minimum was.
template <int kPlanes>
inline int best_state(const float* values, const float* squares, float t, const float* cost, int end) {
  constexpr int kEnds = 4096 >> kPlanes, kOldest = 1 << kPlanes;
  int best = end;
  float least = 3e38f;
  for (int h = 0; h < kOldest; ++h) {
    const int state = h * kEnds + end;
    const float total = values[state] * (-2 * t) + squares[state] + cost[state >> kPlanes];
    if (total < least) {
      least = total;
      best = state;
    }
  }
  return best;
}

template <int kPlanes, int kSegments>
inline void viterbi_segments(const ViterbiTask& task, const float* squares, int64_t first) {
  constexpr int kEnds = 4096 >> kPlanes;
  const int64_t n = task.segment;
  auto cost = [&](int s, int64_t i) { return task.history + (s * (n + 1) + i) * kEnds; };
  auto target = [&](int s, int64_t i) { return task.target[(first + s) * n + i]; };
  auto forward = [&](int64_t n_rows, auto row_of) {
    for (int64_t i = 0; i < n_rows; ++i) {
      float t[kSegments];
      const float* from[kSegments];
      float* to[kSegments];
      for (int s = 0; s < kSegments; ++s) {
        t[s] = target(s, row_of(i));
        from[s] = cost(s, i);
        to[s] = cost(s, i + 1);
      }
      trellis_row<kPlanes, kSegments>(task.values, squares, t, from, to);
    }
  };
  // First, what the state is where the segment closes: a run around row 0 with free ends. A code forgets what lies several times its
  // memory (at most 6 rows) away, so 48 rows on each side are enough, where the definition takes half the segment.
  const int64_t side = std::min<int64_t>(48, n / 2);
  auto around = [&](int64_t i) { return (n - side + i) % n; };
  for (int s = 0; s < kSegments; ++s) std::fill_n(cost(s, 0), kEnds, 0.0f);
  forward(2 * side, around);
  int closing[kSegments];
  for (int s = 0; s < kSegments; ++s) {
    const float* last = cost(s, 2 * side);
    int end = int(std::min_element(last, last + kEnds) - last);
    for (int64_t i = 2 * side - 1; i >= side; --i)
      end = best_state<kPlanes>(task.values, squares, target(s, around(i)), cost(s, i), end) >> kPlanes;
    closing[s] = end;
  }

  // Then the segment, with that state forced at both ends.
  for (int s = 0; s < kSegments; ++s) {
    std::fill_n(cost(s, 0), kEnds, 1e30f);
    cost(s, 0)[closing[s]] = 0;
  }
  forward(n, [](int64_t i) { return i; });
  for (int s = 0; s < kSegments; ++s) {
    int end = closing[s];
    for (int64_t i = n - 1; i >= 0; --i) {
      const int state = best_state<kPlanes>(task.values, squares, target(s, i), cost(s, i), end);
      const int64_t at = (first + s) * n + i;
      task.coded[at] = task.values[state];
      task.bits[at] = uint8_t(state & ((1 << kPlanes) - 1));
      end = state >> kPlanes;
    }
  }
}

template <int kPlanes>
inline void viterbi_planes(const ViterbiTask& task) {
  float* squares = task.history + kSegmentsAtOnce * (task.segment + 1) * (4096 >> kPlanes);
  for (int s = 0; s < 4096; ++s) squares[s] = task.values[s] * task.values[s];
  int64_t first = 0;
  for (; first + kSegmentsAtOnce <= task.n_segments; first += kSegmentsAtOnce)
    viterbi_segments<kPlanes, kSegmentsAtOnce>(task, squares, first);
  for (; first < task.n_segments; ++first) viterbi_segments<kPlanes, 1>(task, squares, first);
}

inline void viterbi(const ViterbiTask& task) {
  if (task.n_planes == 2) return viterbi_planes<2>(task);
  if (task.n_planes == 3) return viterbi_planes<3>(task);
  viterbi_planes<4>(task);
}

}  // namespace sb::SB_ISA
