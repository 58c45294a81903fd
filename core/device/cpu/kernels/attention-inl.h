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

/// Whether float16 is cheaply read where it lies, more than once too.
#if defined(__wasm__)
inline constexpr bool kReadsHalves = false;
#else
inline constexpr bool kReadsHalves = true;
#endif

/// n_rows rows of n cached elements, float16 or float32, as floats padded with zeros to whole vectors. from: rows `stride` bytes apart;
/// next: as many that will be read after them, asked for meanwhile
template <bool kHalf>
inline void unpack_rows(const std::byte* from, const std::byte* next, int64_t stride, int64_t n_rows, int64_t n, float* to) {
  constexpr int64_t kBytes = kHalf ? 2 : 4;
  const int64_t wide = padded(n), n_whole = n / kLanes * kLanes;
  for (int64_t row = 0; row < n_rows; ++row, from += stride, next += stride, to += wide) {
    ask_for(next, stride);
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

  /// This head's part of a page: n rows `stride` bytes apart, as floats or as float16. next: what is read after it.
  struct Rows {
    const std::byte* at;
    int64_t stride;  // bytes
    bool half;
    const std::byte* next;
  };
  Rows stored_rows(int64_t first, int64_t n, int part) const {
    auto at = [&](int64_t token, int of) { return kv.at(token, op.layer, of, kv_head * op.head_dim); };
    // A page's values are read behind its keys, the next page's keys behind them.
    const bool has_next = part == 0 || first + n <= last_seen(n_rows - 1);
    return {at(first, part), kv.head_bytes(), kv.half(), has_next ? at(part == 0 ? first : first + n, 1 - part) : at(first, part)};
  }
  /// As floats, where they lie or unpacked to `room`; if wanted, padded with zeros to whole vectors.
  Rows float_rows(int64_t first, int64_t n, int part, float* room, bool is_padded = false) const {
    const int64_t dh = op.head_dim;
    const Rows from = stored_rows(first, n, part);
    if (!from.half && (!is_padded || dh == padded(dh))) return from;
    (from.half ? unpack_rows<true> : unpack_rows<false>)(from.at, from.next, from.stride, n, dh, room);
    return {reinterpret_cast<const std::byte*>(room), 4 * padded(dh), false, from.next};
  }
};

/// Keys of a few tokens are cut into runs with borders that are the same for everyone, so that threads have something to share where there
/// are few heads; who does the last run of a piece of work puts together what all of them left (Flash-Decoding, Dao et al. 2023).
struct KeyRuns {
  static constexpr int64_t kKeys = 2 * kPageTokens, kMostRows = 1024;
  int64_t first = 0, n = 1, n_rows = 0, wide = 0;  // the first run, how many; rows of all tokens

  KeyRuns(const Attention& op, int64_t n_tokens, int64_t position) : n_rows(n_tokens * op.n_heads), wide(padded(op.head_dim)) {
    // By the op alone, not by how many tokens go together: they get the bits that each alone would.
    if (n_tokens > kFewTokens || kFewTokens * op.n_heads > kMostRows) return;
    first = op.window > 0 ? std::max<int64_t>(0, position + 1 - op.window) / kKeys : 0;
    n = (position + n_tokens - 1) / kKeys - first + 1;
  }
  /// A piece's count of runs that are done, which its last one sets to zero again; each row's sums, highest score and total in each run.
  int64_t n_bytes() const { return n == 1 ? 0 : kCountsBytes + n_rows * n * (wide + 2) * 4; }
  uint32_t* count(std::byte* shared, int64_t piece) const { return reinterpret_cast<uint32_t*>(shared) + piece; }
  float* sums(std::byte* shared, int64_t row, int64_t run) const {
    return reinterpret_cast<float*>(shared + kCountsBytes) + (row * n + run) * (wide + 2);
  }

 private:
  static constexpr int64_t kCountsBytes = kMostRows * 4;  // where every run has them: no more pieces than rows
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
    const AttentionPiece::Rows keys = piece.float_rows(from, n, 0, s.page);
    std::fill_n(s.scores, n * kAttentionRows, 0.0f);
    add_all_products<kV>(s.queries, dh, reinterpret_cast<const float*>(keys.at), keys.stride / 4, 1, n, s.scores);

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
    const AttentionPiece::Rows values = piece.float_rows(from, n, 1, s.page);
    add_all_products<kV>(s.scores, n, reinterpret_cast<const float*>(values.at), 1, values.stride / 4, dh, s.sums);
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    const float inverse = 1.0f / total[r / kLanes][r % kLanes];
    float* to = piece.out(r);
    for (int64_t i = 0; i < dh; ++i) to[i] = s.sums[i * kAttentionRows + r] * inverse;
  }
}

/// A vector of a row's elements from i on.
template <bool kHalf>
inline F32 elements(const std::byte* row, int64_t i) {
  return kHalf ? load_half(row + 2 * i) : load<F32>(row + 4 * i);
}

/// scores[r, k] = queries[r] · keys[k] for four neighbours: as many sums as hide each other's latency.
template <int kRows, bool kHalf>
inline void score_keys(const float* queries, int64_t wide, const std::byte* keys, int64_t stride, float* scores) {
  F32 sums[kRows][4] = {};
  for (int64_t i = 0; i < wide; i += kLanes) {
    F32 q[kRows];
    for (int r = 0; r < kRows; ++r) q[r] = load<F32>(queries + r * wide + i);
    for (int k = 0; k < 4; ++k) {
      const F32 key = elements<kHalf>(keys + k * stride, i);
      for (int r = 0; r < kRows; ++r) sums[r][k] = mul_add(q[r], key, sums[r][k]);
    }
  }
  for (int r = 0; r < kRows; ++r) store(scores + r * kPageTokens, sum_each(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
}
/// The scores of n keys; those of the last four may reach behind them, into rows of the same page.
template <int kRows, bool kHalf>
inline void score_page(const AttentionPiece::Rows& keys, int64_t n, const float* queries, int64_t wide, float* scores) {
  for (int64_t j = 0; j < n; j += 4) {
    if (kHalf) ask_for(keys.next + j * keys.stride, 4 * keys.stride);
    score_keys<kRows, kHalf>(queries, wide, keys.at + j * keys.stride, keys.stride, scores + j);
  }
}
/// to[r] += Σ_j weights[r, j] · values[j] for kV vectors of the elements from `first` on.
template <int kRows, int kV, bool kHalf>
inline void add_values(const float* weights, int64_t n, const AttentionPiece::Rows& values, int64_t first, float* to, int64_t wide) {
  F32 sums[kRows][kV];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) sums[r][v] = load<F32>(to + r * wide + first + v * kLanes);
  }
  for (int64_t j = 0; j < n; ++j) {
    if (kHalf && first == 0) ask_for(values.next + j * values.stride, values.stride);
    F32 weight[kRows];
    for (int r = 0; r < kRows; ++r) weight[r] = splat(weights[r * kPageTokens + j]);
    for (int v = 0; v < kV; ++v) {
      const F32 value = elements<kHalf>(values.at + j * values.stride, first + v * kLanes);
      for (int r = 0; r < kRows; ++r) sums[r][v] = mul_add(weight[r], value, sums[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kV; ++v) store(to + r * wide + first + v * kLanes, sums[r][v]);
  }
}
template <int kRows, bool kHalf>
inline void add_page(const AttentionPiece::Rows& values, int64_t n, const float* weights, float* sums, int64_t wide) {
  constexpr int kV = 4;
  int64_t i = 0;
  for (; i + kV * kLanes <= wide; i += kV * kLanes) add_values<kRows, kV, kHalf>(weights, n, values, i, sums, wide);
  for (; i < wide; i += kLanes) add_values<kRows, 1, kHalf>(weights, n, values, i, sums, wide);
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

/// What rows have of some keys: in the scratch's sums Σ exp(score − top) · value, and here each one's highest score and total.
struct Attended {
  float top[kAttentionRows], total[kAttentionRows];
};

/// Few rows and the keys [first_key, end_key): a head's elements are the lanes.
inline Attended attend_elements(const AttentionPiece& piece, int64_t first_key, int64_t end_key, const AttentionScratch& s) {
  const int64_t dh = piece.op.head_dim, wide = padded(dh), n_rows = piece.n_rows;
  Attended all{};
  float *const top = all.top, *const total = all.total;
  std::fill_n(top, n_rows, kUnseen);
  for (int64_t r = 0; r < n_rows; ++r) {
    const float* query = piece.query(r);
    for (int64_t i = 0; i < wide; ++i) s.queries[r * wide + i] = i < dh ? query[i] * piece.op.scale : 0.0f;
  }
  std::fill_n(s.sums, n_rows * wide, 0.0f);
  // Two runs of rows at most read float16 where it lies; for more of them, and in WebAssembly, it is turned once and kept.
  auto rows = [&](int64_t first, int64_t n, int part) {
    const bool is_direct = kReadsHalves && n_rows <= 2 * kElementRows && dh == wide;
    return is_direct ? piece.stored_rows(first, n, part) : piece.float_rows(first, n, part, s.page, true);
  };
  // A key has its lane by its place in the cache, so that no sum depends on where a window or its neighbour's begins.
  const int64_t begin = std::max(first_key, piece.first_seen(0) / kLanes * kLanes),
                end = std::min(end_key, piece.last_seen(n_rows - 1) + 1);
  for (int64_t page = begin / kPageTokens * kPageTokens; page < end; page += kPageTokens) {
    const int64_t from = std::max(begin, page), n = std::min(end, page + kPageTokens) - from;
    const AttentionPiece::Rows keys = rows(from, n, 0);
    each_few_rows(n_rows, [&]<int kRows>(int64_t r, std::integral_constant<int, kRows>) {
      const auto score = kReadsHalves && keys.half ? score_page<kRows, kReadsHalves> : score_page<kRows, false>;
      score(keys, n, s.queries + r * wide, wide, s.scores + r * kPageTokens);
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
    const AttentionPiece::Rows values = rows(from, n, 1);
    each_few_rows(n_rows, [&]<int kRows>(int64_t r, std::integral_constant<int, kRows>) {
      const auto add = kReadsHalves && values.half ? add_page<kRows, kReadsHalves> : add_page<kRows, false>;
      add(values, n, s.scores + r * kPageTokens, s.sums + r * wide, wide);
    });
  }
  return all;
}

/// A run of a piece's keys, and the answer when it is the piece's last to be done.
inline void attend_run(const AttentionPiece& piece, int64_t index, const KeyRuns& runs, int64_t run, std::byte* shared,
                       const AttentionScratch& s) {
  const int64_t dh = piece.op.head_dim, wide = runs.wide, first_key = (runs.first + run) * KeyRuns::kKeys;
  auto row_of = [&](int64_t r) { return (piece.t0 + r / piece.n_heads) * piece.op.n_heads + piece.column(r) / dh; };
  const Attended mine = attend_elements(piece, first_key, first_key + KeyRuns::kKeys, s);
  for (int64_t r = 0; r < piece.n_rows; ++r) {
    float* to = runs.sums(shared, row_of(r), run);
    std::copy_n(s.sums + r * wide, wide, to);
    to[wide] = mine.top[r];
    to[wide + 1] = mine.total[r];
  }
  if (__atomic_add_fetch(runs.count(shared, index), 1u, __ATOMIC_ACQ_REL) < runs.n) return;
  __atomic_store_n(runs.count(shared, index), 0u, __ATOMIC_RELAXED);
  for (int64_t r = 0; r < piece.n_rows; ++r) {
    float top = kUnseen, total = 0;
    for (int64_t k = 0; k < runs.n; ++k) top = std::max(top, runs.sums(shared, row_of(r), k)[wide]);
    std::fill_n(s.sums, wide, 0.0f);
    for (int64_t k = 0; k < runs.n; ++k) {
      const float* sums = runs.sums(shared, row_of(r), k);
      const float weight = exp(splat(sums[wide] - top))[0];
      total += weight * sums[wide + 1];
      for (int64_t i = 0; i < wide; i += kLanes) store(s.sums + i, mul_add(splat(weight), load<F32>(sums + i), load<F32>(s.sums + i)));
    }
    for (int64_t i = 0; i < dh; ++i) piece.out(r)[i] = s.sums[i] / total;
  }
}
/// All keys in one run.
inline void attend_few(const AttentionPiece& piece, const AttentionScratch& s) {
  const int64_t dh = piece.op.head_dim, wide = padded(dh);
  const Attended all = attend_elements(piece, 0, std::numeric_limits<int64_t>::max(), s);
  for (int64_t r = 0; r < piece.n_rows; ++r) {
    for (int64_t i = 0; i < dh; ++i) piece.out(r)[i] = s.sums[r * wide + i] / all.total[r];
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
  // By the run alone, not by how it is cut: the two ways round differently. A few tokens go the way of one.
  const bool has_few_rows = n_tokens <= kFewTokens || group * std::min(n_tokens, tokens_at_once) <= kLanes / 2;
  const KeyRuns runs(op, n_tokens, scalars.position);
  const int64_t heads_at_once =
                    heads_of_a_piece(op.n_kv_heads * token_blocks * runs.n, group, std::min(tokens_at_once, n_tokens), worker.n_parts),
                head_blocks = (group + heads_at_once - 1) / heads_at_once;
  const AttentionScratch scratch(worker.scratch, padded(op.head_dim));

  const int64_t n_pieces = op.n_kv_heads * head_blocks * token_blocks;
  for (int64_t k = worker.part; k < n_pieces * runs.n; k += worker.n_parts) {
    const int64_t i = k % n_pieces, head0 = i / op.n_kv_heads % head_blocks * heads_at_once,
                  t0 = i / op.n_kv_heads / head_blocks * tokens_at_once, n_heads = std::min(heads_at_once, group - head0),
                  n_queries = std::min(tokens_at_once, n_tokens - t0);
    const AttentionPiece piece{step, op, *scalars.kv, i % op.n_kv_heads, head0, n_heads, t0, n_heads * n_queries, scalars.position + t0};
    if (runs.n > 1) {
      attend_run(piece, i, runs, k / n_pieces, worker.shared, scratch);
    } else {
      has_few_rows ? attend_few(piece, scratch) : attend(piece, scratch);
    }
  }
}

}  // namespace sb::SB_ISA
