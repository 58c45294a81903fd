// Attention over the cache. One piece of work is a key-value head and a few tokens: all query rows that read this head's keys (the
// heads of its group × those tokens) are met with each key while it is in registers.
#pragma once

#include <algorithm>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"

namespace sb::SB_ISA {

/// Head sizes are padded with zeros to whole vectors in scratch.
inline int64_t padded(int64_t head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

/// `n` cached elements as floats, padded with zeros to whole vectors.
inline void load_cached(const std::byte* from, bool half, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, half ? load_half(from + 2 * i) : load<F32>(from + 4 * i));
  for (; i < n; ++i) to[i] = half ? half_to_f32(load<uint16_t>(from + 2 * i)) : load<float>(from + 4 * i);
}

struct AttentionScratch {
  float *queries, *sums, *element, *scores;
  static int64_t n_floats(int64_t head_dim, int64_t context) {
    return 2 * kAttentionRows * padded(head_dim) + padded(head_dim) + kAttentionRows * ((context + 15) / 16 * 16);
  }
};

inline void attention(const Step& step, const Scalars& scalars, const Worker& worker) {
  const Attention& op = std::get<Attention>(*step.op);
  const TensorView& q = step.views.in[0];
  KvPages& kv = *scalars.kv;
  const int64_t group = op.n_heads / op.n_kv_heads, dh = op.head_dim, wide = padded(dh), n_tokens = q.shape[0];
  // Few pieces that do not divide among the threads are cut into single heads: reading a key twice costs less than waiting.
  const bool uneven = n_tokens * op.n_kv_heads < 4 * worker.n_threads && n_tokens * op.n_kv_heads % worker.n_threads != 0;
  const int64_t heads_at_once = uneven ? 1 : std::min(group, kAttentionRows), tokens_at_once = std::max<int64_t>(1, kAttentionRows / group);
  const int64_t head_blocks = (group + heads_at_once - 1) / heads_at_once, token_blocks = (n_tokens + tokens_at_once - 1) / tokens_at_once;
  const int64_t stride = (scalars.position + n_tokens + 15) / 16 * 16;  // of a row of scores
  AttentionScratch s;
  s.queries = reinterpret_cast<float*>(worker.scratch);
  s.sums = s.queries + kAttentionRows * wide;
  s.element = s.sums + kAttentionRows * wide;
  s.scores = s.element + wide;

  const int64_t n_pieces = op.n_kv_heads * head_blocks * token_blocks;
  for (int64_t piece = worker.thread; piece < n_pieces; piece += worker.n_threads) {
    const int64_t kv_head = piece % op.n_kv_heads, head0 = piece / op.n_kv_heads % head_blocks * heads_at_once,
                  t0 = piece / op.n_kv_heads / head_blocks * tokens_at_once;
    const int64_t n_heads = std::min(heads_at_once, group - head0), n_queries = std::min(tokens_at_once, n_tokens - t0),
                  n_rows = n_heads * n_queries;
    // Row r is head r % n_heads of token r / n_heads; it sees tokens first_seen … last_seen of the cache.
    auto last_seen = [&](int64_t r) { return scalars.position + t0 + r / n_heads; };
    auto first_seen = [&](int64_t r) { return op.window > 0 ? std::max<int64_t>(0, last_seen(r) + 1 - op.window) : 0; };
    auto head_of = [&](int64_t r) { return (kv_head * group + head0 + r % n_heads) * dh; };

    for (int64_t r = 0; r < n_rows; ++r) {
      const float* from = q.row<float>(t0 + r / n_heads) + head_of(r);
      for (int64_t i = 0; i < wide; ++i) s.queries[r * wide + i] = i < dh ? from[i] * op.scale : 0.0f;
    }
    std::fill_n(s.sums, n_rows * wide, 0.0f);
    std::fill_n(s.element, wide, 0.0f);

    const int64_t begin = first_seen(0), end = last_seen(n_rows - 1) + 1;
    const int64_t element_bytes = kv.half() ? 2 : 4;
    for (int64_t j = begin; j < end; ++j) {
      load_cached(kv.row(j, op.layer, 0) + kv_head * dh * element_bytes, kv.half(), dh, s.element);
      for (int64_t r = 0; r < n_rows; ++r) {
        F32 acc{};
        for (int64_t i = 0; i < wide; i += kLanes) acc = mul_add(load<F32>(s.queries + r * wide + i), load<F32>(s.element + i), acc);
        s.scores[r * stride + j - begin] = sum(acc);
      }
    }

    float inverse[kAttentionRows];
    for (int64_t r = 0; r < n_rows; ++r) {
      float* row = s.scores + r * stride;
      const int64_t from = first_seen(r) - begin, to = last_seen(r) + 1 - begin, n = end - begin;
      // What this row must not see gets −1e30, which exp turns into 0; so does the padding up to a whole vector.
      std::fill(row, row + from, -1e30f);
      std::fill(row + to, row + (n + 15) / 16 * 16, -1e30f);
      float top = -1e30f;
      if (op.softcap > 0) {
        for (int64_t j = 0; j < n; j += kLanes)
          store(row + j, max(tanh(load<F32>(row + j) * (1.0f / op.softcap)) * op.softcap, splat(-1e30f)));
        std::fill(row, row + from, -1e30f);
        std::fill(row + to, row + (n + 15) / 16 * 16, -1e30f);
      }
      for (int64_t j = from; j < to; ++j) top = std::max(top, row[j]);
      F32 total{};
      for (int64_t j = 0; j < n; j += kLanes) {
        const F32 p = exp(load<F32>(row + j) - top);
        store(row + j, p);
        total += p;
      }
      inverse[r] = 1.0f / sum(total);
    }

    for (int64_t j = begin; j < end; ++j) {
      load_cached(kv.row(j, op.layer, 1) + kv_head * dh * element_bytes, kv.half(), dh, s.element);
      for (int64_t r = 0; r < n_rows; ++r) {
        const F32 p = splat(s.scores[r * stride + j - begin]);
        for (int64_t i = 0; i < wide; i += kLanes)
          store(s.sums + r * wide + i, mul_add(p, load<F32>(s.element + i), load<F32>(s.sums + r * wide + i)));
      }
    }
    for (int64_t r = 0; r < n_rows; ++r) {
      float* to = step.views.out.row<float>(t0 + r / n_heads) + head_of(r);
      for (int64_t i = 0; i < dh; ++i) to[i] = s.sums[r * wide + i] * inverse[r];
    }
  }
}

}  // namespace sb::SB_ISA
