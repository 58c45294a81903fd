#include "quantize/moments.h"

#include <algorithm>
#include <atomic>

#include "device/cpu/quantize_kernels.h"

namespace sb {
namespace {

/// Adds Σ left xᵀ to `sums` [n, k]: left [n_tokens, n], x [n_tokens, k]. Threads take strips of rows as they come, the last first; with
/// `lower_only` each ends at its own last column, which is all that a symmetric sum needs.
void add_product(std::span<const float> left, int64_t n, std::span<const float> x, int64_t k, Booked<float>& sums, ThreadPool& pool,
                 bool lower_only = false) {
  if (sums.empty()) sums.assign(size_t(n * k), 0.0f);
  constexpr int64_t kStrip = 96;
  const int64_t n_tokens = int64_t(x.size()) / k, n_strips = (n + kStrip - 1) / kStrip;
  std::atomic<int64_t> next{n_strips};
  pool.run([&](int) {
    for (int64_t strip; (strip = next.fetch_sub(1, std::memory_order_relaxed) - 1) >= 0;) {
      const int64_t begin = strip * kStrip, end = std::min(n, begin + kStrip);
      quantize_kernels().product({.a = left.data() + begin,
                                  .a_row = 1,
                                  .a_step = n,
                                  .b = x.data(),
                                  .b_row = k,
                                  .c = sums.data() + begin * k,
                                  .c_row = k,
                                  .n_sum = n_tokens,
                                  .n_rows = end - begin,
                                  .n_columns = lower_only ? end : k});
    }
  });
}

}  // namespace

void Moments::add(std::span<const float> x, int64_t k, ThreadPool& pool) {
  add_product(x, k, x, k, own, pool, true);
  n_tokens += int64_t(x.size()) / k;
}
void Moments::add_cross(std::span<const float> exact, std::span<const float> x, int64_t k, ThreadPool& pool) {
  add_product(exact, k, x, k, cross, pool);
}
void Moments::add_stream(std::span<const float> lost, int64_t n, std::span<const float> x, int64_t k, ThreadPool& pool) {
  add_product(lost, n, x, k, stream, pool);
}

void Moments::close(int64_t k) {
  const float per_token = 1 / float(n_tokens);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j <= i; ++j) own[size_t(j * k + i)] = own[size_t(i * k + j)] *= per_token;
  }
  for (float& v : cross) v *= per_token;
  for (float& v : stream) v *= per_token;
}

Moments Moments::identity(int64_t k) {
  Moments m;
  m.n_tokens = 1;
  m.own.assign(size_t(k * k), 0.0f);
  for (int64_t i = 0; i < k; ++i) m.own[size_t(i * k + i)] = 1;
  return m;
}

}  // namespace sb
