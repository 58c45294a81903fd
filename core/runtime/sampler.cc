#include "runtime/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

// The promise of equal tokens everywhere rests on IEEE arithmetic in a fixed order: no fused multiply-adds where the machine has them,
// and no exp() of a C library, whose last bit differs from one to the next.
#pragma STDC FP_CONTRACT OFF

namespace sb {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(x) for x <= 0, within 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, then the Taylor sum of degree 13, whose rest is below 2^-57.
double exp_negative(double x) {
  if (!(x > -700.0)) return 0;         // e^-700 = 1e-304 is still a normal number, so the scaling below never leaves the exponents
  constexpr double kRound = 0x1.8p52;  // adding it leaves the nearest whole number in the low bits
  double shifted = x * 0x1.71547652b82fep0 + kRound;
  double n = shifted - kRound;
  double r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;  // ln 2 in two parts; the high part times n is exact
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  return sum * std::bit_cast<double>(uint64_t(int64_t(n) + 1023) << 52);
}

struct Peak {
  size_t id = 0;  // the lowest among equals
  bool is_sound = true;
};

// The largest logit, and whether all are numbers below +inf. Floats are compared through integers of the same order, because that
// reduction vectorises without permission to reorder float arithmetic: 262,144 logits take some 30 us instead of 300.
Peak find_peak(std::span<const float> logits) {
  constexpr size_t kBlock = 1024;
  int32_t best = std::numeric_limits<int32_t>::min();
  size_t best_block = 0;
  int32_t is_bad = 0;
  for (size_t from = 0; from < logits.size(); from += kBlock) {
    size_t to = std::min(from + kBlock, logits.size());
    int32_t most = std::numeric_limits<int32_t>::min();
    for (size_t i = from; i < to; ++i) {
      float x = logits[i] + 0.0f;  // -0 becomes +0, its equal
      is_bad |= int32_t(!(x < kInfinity));
      int32_t bits = std::bit_cast<int32_t>(x);
      int32_t order = bits ^ ((bits >> 31) & 0x7fffffff);
      most = order > most ? order : most;
    }
    if (most > best) {
      best = most;
      best_block = from;
    }
  }
  if (is_bad) return {0, false};
  size_t id = best_block;
  float top = std::bit_cast<float>(best ^ ((best >> 31) & 0x7fffffff));
  while (id < logits.size() && logits[id] != top) ++id;
  return {id, top > -kInfinity};
}

// Larger first, the lower id among equals: a total order, so that any correct selection finds the same set.
auto larger_first(std::span<const float> values) {
  return [values](int32_t a, int32_t b) { return values[size_t(a)] != values[size_t(b)] ? values[size_t(a)] > values[size_t(b)] : a < b; };
}

// Leaves in `kept` the k largest, in no order. One scan: a buffer of 2k is cut back to k whenever it is full, and what lies at or below
// the kth of the last cut is never put in (an equal one has the higher id).
void keep_top_k(std::span<const float> logits, size_t k, std::vector<int32_t>& kept) {
  kept.clear();
  float bar = -kInfinity;
  bool has_bar = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (has_bar && !(logits[i] > bar)) continue;
    kept.push_back(int32_t(i));
    if (kept.size() < 2 * k) continue;
    std::nth_element(kept.begin(), kept.begin() + ptrdiff_t(k - 1), kept.end(), larger_first(logits));
    kept.resize(k);
    bar = logits[size_t(kept[k - 1])];
    has_bar = true;
  }
  if (kept.size() <= k) return;
  std::nth_element(kept.begin(), kept.begin() + ptrdiff_t(k - 1), kept.end(), larger_first(logits));
  kept.resize(k);
}

// Leaves the fewest of the heaviest that together weigh at least `top_p` of all. Sorts only as far as it must: mostly a few hundred.
void keep_top_p(std::span<const float> weights, double top_p, std::vector<int32_t>& kept) {
  double total = 0;
  for (int32_t id : kept) total += double(weights[size_t(id)]);
  double sum = 0;
  size_t n_sorted = 0;
  size_t step = 256;
  while (n_sorted < kept.size()) {
    auto from = kept.begin() + ptrdiff_t(n_sorted);
    size_t n = std::min(step, kept.size() - n_sorted);
    if (n_sorted + n < kept.size()) std::nth_element(from, from + ptrdiff_t(n - 1), kept.end(), larger_first(weights));
    std::sort(from, from + ptrdiff_t(n), larger_first(weights));
    for (size_t i = 0; i < n; ++i) {
      sum += double(weights[size_t(kept[n_sorted + i])]);
      if (sum >= top_p * total) return kept.resize(n_sorted + i + 1);
    }
    n_sorted += n;
    step *= 4;
  }
}

uint64_t next(std::array<uint64_t, 4>& s) {  // xoshiro256** 1.0, Blackman & Vigna 2018
  uint64_t result = std::rotl(s[1] * 5, 7) * 9;
  uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return result;
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  uint64_t z = options.seed;
  for (uint64_t& word : state_) {  // splitmix64
    z += 0x9e3779b97f4a7c15;
    uint64_t x = z;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    word = x ^ (x >> 31);
  }
}

Draw Sampler::draw() {
  const SamplerOptions& o = options_;
  after_.push_back(after_.empty() ? state_ : after_.back());
  if (!(o.temperature > 0)) return {};
  // Rounded down, so that it stays below 1.
  const float mark = float(next(after_.back()) >> 40) * 0x1p-24f;
  return {o.temperature, o.top_k, o.top_p, o.min_p, mark};
}

Result<int32_t> Sampler::sample(std::span<float> logits, std::span<const int32_t> history) {
  SB_ASSERT(!logits.empty());
  if (float penalty = options_.repetition_penalty; penalty != 1 && penalty > 0) {
    seen_.resize(logits.size());
    for (int32_t id : history) {
      if (id < 0 || size_t(id) >= logits.size() || seen_[size_t(id)]) continue;  // ids past V stand for images and the like
      seen_[size_t(id)] = 1;
      float& x = logits[size_t(id)];
      if (x < kInfinity) x = x > 0 ? std::min(x / penalty, std::numeric_limits<float>::max()) : x * penalty;
    }
    for (int32_t id : history) {
      if (id >= 0 && size_t(id) < logits.size()) seen_[size_t(id)] = 0;
    }
  }

  Peak peak = find_peak(logits);
  if (!peak.is_sound) return err(Code::kLogitsNotFinite, {{"position", history.size()}});
  if (!(options_.temperature > 0)) return int32_t(peak.id);

  if (options_.top_k > 0 && size_t(options_.top_k) < logits.size()) {
    keep_top_k(logits, size_t(options_.top_k), candidates_);
    std::sort(candidates_.begin(), candidates_.end());
  } else {
    candidates_.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = int32_t(i);
  }

  // From here a candidate's logit is its weight, its probability over that of the likeliest.
  double top = double(logits[peak.id]);
  double temperature = double(options_.temperature);
  for (int32_t id : candidates_) {
    float& x = logits[size_t(id)];
    x = float(exp_negative((double(x) - top) / temperature));
  }
  if (options_.top_p < 1) {
    keep_top_p(logits, double(options_.top_p), candidates_);
    std::sort(candidates_.begin(), candidates_.end());
  }
  if (options_.min_p > 0) {
    std::erase_if(candidates_, [&](int32_t id) { return logits[size_t(id)] < options_.min_p; });  // the likeliest weighs 1 and stays
  }

  // Always in the order of ids, so that the sums do not depend on how the candidates were found.
  double total = 0;
  for (int32_t id : candidates_) total += double(logits[size_t(id)]);
  double mark = double(next(state_) >> 11) * 0x1p-53 * total;
  double sum = 0;
  for (int32_t id : candidates_) {
    sum += double(logits[size_t(id)]);
    if (sum > mark) return id;
  }
  return int32_t(peak.id);  // not reached: mark < total
}

}  // namespace sb
