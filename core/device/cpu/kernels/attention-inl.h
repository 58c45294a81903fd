// Attention over the cache, a page of keys and values at a time (online softmax: Milakov & Gimelshein 2018; blocks as in FlashAttention,
// Dao et al. 2022). One piece of work is a key-value head and a few tokens: all query rows that read this head (the heads of its group ×
// those tokens) meet the page together. Pages have the same borders for everyone, so that no row depends on how the work was cut.
#pragma once

#include <algorithm>
#include <limits>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"

namespace sb::SB_ISA {

inline constexpr float kUnseen = -1e30f;  // a score below all others: exp turns it into 0

/// Head sizes are padded with zeros to whole vectors in scratch.
inline int64_t padded(int64_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

/// Rows whose lines are asked for ahead of the one that is read: those of other heads lie between them.
inline constexpr int64_t kRowsAhead = 8;

/// n_rows rows of n cached elements, float16 or float32, as floats padded with zeros to whole vectors. from: rows `stride` bytes apart
template <bool kHalf>
inline void unpack_rows(const std::byte* from, int64_t stride, int64_t n_rows, int64_t n, float* to) {
  constexpr int64_t kBytes = kHalf ? 2 : 4;
  const int64_t wide = padded(n), n_whole = n / kLanes * kLanes;
  for (int64_t row = 0; row < n_rows; ++row, from += stride, to += wide) {
    const std::byte* ahead = from + std::min(kRowsAhead, n_rows - 1 - row) * stride;
    for (int64_t line = 0; line < kBytes * n; line += 64) prefetch(ahead + line);
    int64_t i = 0;
    for (; i < n_whole; i += kLanes) store(to + i, kHalf ? load_half(from + kBytes * i) : load<F32>(from + kBytes * i));
    for (; i < n; ++i) to[i] = kHalf ? half_to_f32(load<uint16_t>(from + kBytes * i)) : load<float>(from + kBytes * i);
    for (; i < wide; ++i) to[i] = 0;
  }
}

struct AttentionScratch {
  float* queries;  // [dh, 16] or [16, dh]
  float* sums;     // likewise
  float* page;     // [64, dh]: keys or values as floats
  float* scores;   // [64, 16] or [16, 64]
  static int64_t n_floats(int64_t head_dim) { return (2 * kAttentionRows + kPageTokens) * padded(head_dim) + kPageTokens * kAttentionRows; }
  AttentionScratch(std::byte* scratch, int64_t wide)
      : queries(reinterpret_cast<float*>(scratch)),
        sums(queries + kAttentionRows * wide),
        page(sums + kAttentionRows * wide),
        scores(page + kPageTokens * wide) {}
};

/// A piece of work.
struct AttentionPiece {
  const Step& step;
  const Attention& op;
  KvPages& kv;
  int64_t kv_head, head0, n_heads, t0, n_rows;  // heads of the group from head0 on, tokens of the run from t0 on
  int64_t position;                             // of token t0 in the cache

  // Row r is head r % n_heads of token r / n_heads; it sees tokens first_seen … last_seen of the cache.
  int64_t last_seen(int64_t r) const { return position + r / n_heads; }
  int64_t first_seen(int64_t r) const { return op.window > 0 ? std::max<int64_t>(0, last_seen(r) + 1 - op.window) : 0; }
  int64_t column(int64_t r) const { return (kv_head * (op.n_heads / op.n_kv_heads) + head0 + r % n_heads) * op.head_dim; }
  const float* query(int64_t r) const { return step.views.in[0].row<float>(t0 + r / n_heads) + column(r); }
  float* out(int64_t r) const { return step.views.out.row<float>(t0 + r / n_heads) + column(r); }

  /// This head's part of a page: n rows `stride` floats apart, where they lie or unpacked to `room`; if wanted, padded with zeros to whole
  /// vectors.
  struct Rows {
    const float* at;
    int64_t stride;
  };
  Rows rows(int64_t first, int64_t n, int part, float* room, bool is_padded = false) const {
    const int64_t dh = op.head_dim;
    const std::byte* from = kv.at(first, op.layer, part, kv_head * dh);
    if (!kv.half() && (!is_padded || dh == padded(dh))) return {reinterpret_cast<const float*>(from), kv.head_dim()};
    kv.half() ? unpack_rows<true>(from, kv.head_bytes(), n, dh, room) : unpack_rows<false>(from, kv.head_bytes(), n, dh, room);
    return {room, padded(dh)};
  }
};

inline F32 capped(F32 score, float softcap) { return softcap > 0 ? tanh(score * (1.0f / softcap)) * softcap : score; }

/// Sums that stay in registers: V8 (Node 20) already spills with twelve of its fifteen.
#if defined(__wasm__)
inline constexpr int kAttentionSums = 8;
#else
inline constexpr int kAttentionSums = 12;
#endif

/// c[n][16] += Σ_m b[n, m] · a[m][16], for kN of c's rows and kV vectors of their lanes.
template <int kV, int kN>
inline void add_products(const float* a, int64_t n_sum, const float* b, int64_t b_row, int64_t b_step, float* c) {
  F32 sums[kN][kV];
  for (int n = 0; n < kN; ++n) {
    for (int v = 0; v < kV; ++v) sums[n][v] = load<F32>(c + n * kAttentionRows + v * kLanes);
  }
  for (int64_t m = 0; m < n_sum; ++m) {
    F32 lanes[kV];
    for (int v = 0; v < kV; ++v) lanes[v] = load<F32>(a + m * kAttentionRows + v * kLanes);
    for (int n = 0; n < kN; ++n) {
      const F32 factor = splat(b[n * b_row + m * b_step]);
      for (int v = 0; v < kV; ++v) sums[n][v] = mul_add(factor, lanes[v], sums[n][v]);
    }
  }
  for (int n = 0; n < kN; ++n) {
    for (int v = 0; v < kV; ++v) store(c + n * kAttentionRows + v * kLanes, sums[n][v]);
  }
}
template <int kV>
inline void add_all_products(const float* a, int64_t n_sum, const float* b, int64_t b_row, int64_t b_step, int64_t n_rows, float* c) {
  constexpr int kN = kAttentionSums / kV;
  int64_t n = 0;
  for (; n + kN <= n_rows; n += kN) add_products<kV, kN>(a, n_sum, b + n * b_row, b_row, b_step, c + n * kAttentionRows);
  for (; n < n_rows; ++n) add_products<kV, 1>(a, n_sum, b + n * b_row, b_row, b_step, c + n * kAttentionRows);
}

/// Many rows: they are the lanes.
template <int kV>
inline void attend_rows(const AttentionPiece& piece, const AttentionScratch& s) {
  const int64_t dh = piece.op.head_dim, n_rows = piece.n_rows;
  F32 first[kV], last[kV], top[kV], total[kV] = {};
  for (int64_t lane = 0; lane < kV * kLanes; ++lane) {
    const int64_t r = std::min(lane, n_rows - 1);  // lanes without a row do what the last one does
    first[lane / kLanes][lane % kLanes] = float(piece.first_seen(r));
    last[lane / kLanes][lane % kLanes] = float(piece.last_seen(r));
    const float* query = piece.query(r);
    for (int64_t i = 0; i < dh; ++i) s.queries[i * kAttentionRows + lane] = query[i] * piece.op.scale;
  }
  for (F32& t : top) t = splat(kUnseen);
  std::fill_n(s.sums, dh * kAttentionRows, 0.0f);

  const int64_t begin = piece.first_seen(0), end = piece.last_seen(n_rows - 1) + 1;
  for (int64_t page = begin / kPageTokens * kPageTokens; page < end; page += kPageTokens) {
    const int64_t from = std::max(begin, page), n = std::min(end, page + kPageTokens) - from;
    const AttentionPiece::Rows keys = piece.rows(from, n, 0, s.page);
    std::fill_n(s.scores, n * kAttentionRows, 0.0f);
    add_all_products<kV>(s.queries, dh, keys.at, keys.stride, 1, n, s.scores);

    const bool all_seen = from + n - 1 <= piece.last_seen(0) && from >= piece.first_seen(n_rows - 1);
    for (int v = 0; v < kV; ++v) {
      F32 highest = top[v];
      for (int64_t j = 0; j < n; ++j) {
        float* at = s.scores + j * kAttentionRows + v * kLanes;
        F32 score = capped(load<F32>(at), piece.op.softcap);
        if (!all_seen) {
          const F32 token = splat(float(from + j));
          score = token > last[v] ? splat(kUnseen) : token < first[v] ? splat(kUnseen) : score;
        }
        store(at, score);
        highest = max(score, highest);
      }
      const F32 shrink = exp(top[v] - highest);
      top[v] = highest;
      total[v] *= shrink;
      for (int64_t j = 0; j < n; ++j) {
        float* at = s.scores + j * kAttentionRows + v * kLanes;
        const F32 score = load<F32>(at);
        F32 p = exp(score - highest);
        if (!all_seen) p = score <= splat(kUnseen) ? F32{} : p;  // also where a row has seen nothing yet
        store(at, p);
        total[v] += p;
      }
      for (int64_t i = 0; i < dh; ++i) {
        float* at = s.sums + i * kAttentionRows + v * kLanes;
        store(at, load<F32>(at) * shrink);
      }
    }
    const AttentionPiece::Rows values = piece.rows(from, n, 1, s.page);
    add_all_products<kV>(s.scores, n, values.at, 1, values.stride, dh, s.sums);
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    const float inverse = 1.0f / total[r / kLanes][r % kLanes];
    float* to = piece.out(r);
    for (int64_t i = 0; i < dh; ++i) to[i] = s.sums[i * kAttentionRows + r] * inverse;
  }
}

/// scores[r, k] = queries[r] · keys[k] for four neighbours: as many sums as hide each other's latency.
template <int kRows>
inline void score_keys(const float* queries, int64_t wide, const float* keys, int64_t stride, float* scores) {
  F32 sums[kRows][4] = {};
  for (int64_t i = 0; i < wide; i += kLanes) {
    F32 q[kRows];
    for (int r = 0; r < kRows; ++r) q[r] = load<F32>(queries + r * wide + i);
    for (int k = 0; k < 4; ++k) {
      const F32 key = load<F32>(keys + k * stride + i);
      for (int r = 0; r < kRows; ++r) sums[r][k] = mul_add(q[r], key, sums[r][k]);
    }
  }
  for (int r = 0; r < kRows; ++r) store(scores + r * kPageTokens, sum_each(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
}
/// to[r] += Σ_j weights[r, j] · values[j] for kV vectors of the elements.
template <int kRows, int kV>
inline void add_values(const float* weights, int64_t n, const float* values, int64_t stride, float* to, int64_t wide) {
  F32 sums[kRows][kV];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) sums[r][v] = load<F32>(to + r * wide + v * kLanes);
  }
  for (int64_t j = 0; j < n; ++j) {
    F32 weight[kRows];
    for (int r = 0; r < kRows; ++r) weight[r] = splat(weights[r * kPageTokens + j]);
    for (int v = 0; v < kV; ++v) {
      const F32 value = load<F32>(values + j * stride + v * kLanes);
      for (int r = 0; r < kRows; ++r) sums[r][v] = mul_add(weight[r], value, sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) store(to + r * wide + v * kLanes, sums[r][v]);
  }
}
/// Calls f(r, rows) for runs of at most kElementRows rows, `rows` a constant: rows that share what they read of keys and values.
inline constexpr int kElementRows = kAttentionSums / 4;
template <class F>
inline void each_few_rows(int64_t n_rows, F f) {
  int64_t r = 0;
  for (; r + kElementRows <= n_rows; r += kElementRows) f(r, std::integral_constant<int, kElementRows>());
  if (n_rows - r == 2) f(r, std::integral_constant<int, 2>());
  if (n_rows - r == 1) f(r, std::integral_constant<int, 1>());
}

/// Few rows: a head's elements are the lanes.
inline void attend_elements(const AttentionPiece& piece, const AttentionScratch& s) {
  const int64_t dh = piece.op.head_dim, wide = padded(dh), n_rows = piece.n_rows;
  float top[kAttentionRows], total[kAttentionRows] = {};
  std::fill_n(top, n_rows, kUnseen);
  for (int64_t r = 0; r < n_rows; ++r) {
    const float* query = piece.query(r);
    for (int64_t i = 0; i < wide; ++i) s.queries[r * wide + i] = i < dh ? query[i] * piece.op.scale : 0.0f;
  }
  std::fill_n(s.sums, n_rows * wide, 0.0f);
  // A key has its lane by its place in the cache, so that no sum depends on where a window or its neighbour's begins.
  const int64_t begin = piece.first_seen(0) / kLanes * kLanes, end = piece.last_seen(n_rows - 1) + 1;
  for (int64_t page = begin / kPageTokens * kPageTokens; page < end; page += kPageTokens) {
    const int64_t from = std::max(begin, page), n = std::min(end, page + kPageTokens) - from;
    const AttentionPiece::Rows keys = piece.rows(from, n, 0, s.page, true);
    // The last four may reach behind the n keys, into rows of the same page; their scores are not seen.
    each_few_rows(n_rows, [&]<int kRows>(int64_t r, std::integral_constant<int, kRows>) {
      for (int64_t j = 0; j < n; j += 4)
        score_keys<kRows>(s.queries + r * wide, wide, keys.at + j * keys.stride, keys.stride, s.scores + r * kPageTokens + j);
    });
    for (int64_t r = 0; r < n_rows; ++r) {
      float* row = s.scores + r * kPageTokens;
      const int64_t n_whole = (n + kLanes - 1) / kLanes * kLanes;
      if (piece.op.softcap > 0) {
        for (int64_t j = 0; j < n_whole; j += kLanes) store(row + j, capped(load<F32>(row + j), piece.op.softcap));
      }
      const int64_t seen_from = std::clamp<int64_t>(piece.first_seen(r) - from, 0, n),
                    seen_to = std::clamp<int64_t>(piece.last_seen(r) + 1 - from, seen_from, n);
      std::fill(row, row + seen_from, kUnseen);
      std::fill(row + seen_to, row + n_whole, kUnseen);
      const float before = top[r];
      F32 tops = splat(before);
      for (int64_t j = 0; j < n_whole; j += kLanes) tops = max(load<F32>(row + j), tops);
      top[r] = highest(tops);
      const float shrink = exp(splat(before - top[r]))[0];
      F32 added{};
      for (int64_t j = 0; j < n_whole; j += kLanes) store(row + j, exp(load<F32>(row + j) - top[r]));
      std::fill(row, row + seen_from, 0.0f);  // also where the row has seen nothing yet
      std::fill(row + seen_to, row + n_whole, 0.0f);
      for (int64_t j = 0; j < n_whole; j += kLanes) added += load<F32>(row + j);
      total[r] = total[r] * shrink + sum(added);
      for (int64_t i = 0; i < wide; i += kLanes) store(s.sums + r * wide + i, load<F32>(s.sums + r * wide + i) * shrink);
    }
    const AttentionPiece::Rows values = piece.rows(from, n, 1, s.page, true);
    each_few_rows(n_rows, [&]<int kRows>(int64_t r, std::integral_constant<int, kRows>) {
      constexpr int kV = 4;
      const float* weights = s.scores + r * kPageTokens;
      float* sums = s.sums + r * wide;
      int64_t i = 0;
      for (; i + kV * kLanes <= wide; i += kV * kLanes) add_values<kRows, kV>(weights, n, values.at + i, values.stride, sums + i, wide);
      for (; i < wide; i += kLanes) add_values<kRows, 1>(weights, n, values.at + i, values.stride, sums + i, wide);
    });
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    float* to = piece.out(r);
    for (int64_t i = 0; i < dh; ++i) to[i] = s.sums[r * wide + i] / total[r];
  }
}

/// By vectors of lanes that n rows take.
template <int kV = kAttentionRows / kLanes>
inline void attend(const AttentionPiece& piece, const AttentionScratch& s) {
  if constexpr (kV > 1) {
    if (piece.n_rows <= (kV - 1) * kLanes) return attend<kV - 1>(piece, s);
  }
  attend_rows<kV>(piece, s);
}

/// How many heads of a group meet their keys together. Unpacking these costs as much as two rows' products, so it wants many; threads
/// that have nothing left to do want few.
inline int64_t heads_of_a_piece(int64_t n_groups, int64_t group, int64_t n_queries, int64_t n_threads) {
  int64_t best = 1, least = std::numeric_limits<int64_t>::max();
  for (int64_t n_heads = std::min(group, kAttentionRows); n_heads >= 1; --n_heads) {
    const int64_t n_pieces = n_groups * ((group + n_heads - 1) / n_heads);
    const int64_t rows_in_turn = (n_pieces + n_threads - 1) / n_threads * (2 + n_heads * n_queries);
    if (rows_in_turn < least) best = n_heads, least = rows_in_turn;
  }
  return best;
}

inline void attention(const Step& step, const Scalars& scalars, const Worker& worker) {
  const Attention& op = std::get<Attention>(*step.op);
  const int64_t group = op.n_heads / op.n_kv_heads, n_tokens = step.views.in[0].shape[0];
  const int64_t tokens_at_once = std::max<int64_t>(1, kAttentionRows / group),
                token_blocks = (n_tokens + tokens_at_once - 1) / tokens_at_once;
  const int64_t heads_at_once = heads_of_a_piece(op.n_kv_heads * token_blocks, group, std::min(tokens_at_once, n_tokens), worker.n_parts),
                head_blocks = (group + heads_at_once - 1) / heads_at_once;
  // By the run alone, not by how it is cut: the two ways round differently. A few tokens go the way of one.
  const bool has_few_rows = n_tokens <= kFewTokens || group * std::min(n_tokens, tokens_at_once) <= kLanes / 2;
  const AttentionScratch scratch(worker.scratch, padded(op.head_dim));

  const int64_t n_pieces = op.n_kv_heads * head_blocks * token_blocks;
  for (int64_t i = worker.part; i < n_pieces; i += worker.n_parts) {
    const int64_t head0 = i / op.n_kv_heads % head_blocks * heads_at_once, t0 = i / op.n_kv_heads / head_blocks * tokens_at_once,
                  n_heads = std::min(heads_at_once, group - head0), n_queries = std::min(tokens_at_once, n_tokens - t0);
    const AttentionPiece piece{step, op, *scalars.kv, i % op.n_kv_heads, head0, n_heads, t0, n_heads * n_queries, scalars.position + t0};
    has_few_rows ? attend_elements(piece, scratch) : attend(piece, scratch);
  }
}

}  // namespace sb::SB_ISA
