#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace sb {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

uint64_t mix(uint64_t& z) {
  z += 0x9e3779b97f4a7c15;
  uint64_t x = z;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::vector<float> noise(size_t n, uint64_t seed, float scale) {
  std::vector<float> out(n);
  for (float& x : out) x = (float(mix(seed) >> 40) / float(1 << 24) - 0.5f) * scale;
  return out;
}

// The definition, in double and by full sorts: each token's probability after penalty, temperature, top-k, top-p and min-p.
std::vector<double> reference(std::vector<float> logits, const SamplerOptions& o, std::vector<int32_t> history) {
  for (int32_t id : std::set<int32_t>(history.begin(), history.end())) {
    if (id < 0 || size_t(id) >= logits.size()) continue;
    float& x = logits[size_t(id)];
    x = x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty;
  }
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int32_t(i);
  std::sort(order.begin(), order.end(),
            [&](int32_t a, int32_t b) { return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b; });
  if (o.top_k > 0 && size_t(o.top_k) < order.size()) order.resize(size_t(o.top_k));
  double top = double(logits[size_t(order[0])]);
  std::vector<double> weight(order.size());
  double total = 0;
  for (size_t i = 0; i < order.size(); ++i) total += weight[i] = std::exp((double(logits[size_t(order[i])]) - top) / double(o.temperature));
  double sum = 0;
  for (size_t i = 0; i < order.size() && o.top_p < 1; ++i) {
    sum += weight[i];
    if (sum >= double(o.top_p) * total * (1 - 1e-9)) order.resize(i + 1);
  }
  while (weight[order.size() - 1] < double(o.min_p) * (1 - 1e-7)) order.pop_back();
  std::vector<double> p(logits.size());
  total = 0;
  for (size_t i = 0; i < order.size(); ++i) total += weight[i];
  for (size_t i = 0; i < order.size(); ++i) p[size_t(order[i])] = weight[i] / total;
  return p;
}

TEST(Sampler, Greedy) {
  struct Case {
    std::vector<float> logits;
    int32_t id;
  };
  const Case cases[] = {
      {{1}, 0},
      {{1, 3, 2}, 1},
      {{2, 5, 5, 5}, 1},            // the lowest id among equals
      {{-3, -1, -2}, 1},            // all negative
      {{-1, -0.0f, 0.0f}, 1},       // -0 equals 0
      {{-kInf, -kInf, -1e30f}, 2},  // -inf means excluded
      {{1e-45f, 3e-45f, 0}, 1},     // subnormal
  };
  for (const Case& c : cases) {
    std::vector<float> logits = c.logits;
    EXPECT_EQ(Sampler({}).sample(logits, {}).value(), c.id);
  }
}

TEST(Sampler, GreedyOverManySizes) {
  for (size_t n : {2u, 17u, 1023u, 1024u, 1025u, 5000u, 262144u}) {
    std::vector<float> logits = noise(n, n, 30);
    auto expected = int32_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
    EXPECT_EQ(Sampler({}).sample(logits, {}).value(), expected) << n;
  }
}

TEST(Sampler, RefusesWhatIsNoNumber) {
  for (float bad : {kInf, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
    for (float temperature : {0.0f, 1.0f}) {
      for (float penalty : {1.0f, 1.5f}) {
        std::vector<float> logits(3000, 1.0f);
        logits[2999] = bad;
        auto r = Sampler({.temperature = temperature, .repetition_penalty = penalty}).sample(logits, std::vector<int32_t>{2999, 1});
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code(), Code::kLogitsNotFinite);
        EXPECT_EQ(r.error().fields()[0].value, "2");
      }
    }
  }
  std::vector<float> none(5, -kInf);
  EXPECT_FALSE(Sampler({}).sample(none, {}));
}

TEST(Sampler, RepetitionPenalty) {
  std::vector<float> logits = {4, 3, -1, -1.5f};
  EXPECT_EQ(Sampler({.repetition_penalty = 1.5f}).sample(logits, std::vector<int32_t>{0, 0, 0, 7, -1}).value(),
            1);  // once, however often seen
  EXPECT_FLOAT_EQ(logits[0], 4 / 1.5f);
  logits = {-2, -1, -1.5f};
  EXPECT_EQ(Sampler({.repetition_penalty = 2}).sample(logits, std::vector<int32_t>{1}).value(), 2);
  logits = {3e38f, 1};
  EXPECT_EQ(Sampler({.repetition_penalty = 0.01f}).sample(logits, std::vector<int32_t>{0}).value(), 0);  // overflow stays a number
}

TEST(Sampler, TopKTakesTheLowerIdsAmongEquals) {
  for (int32_t k : {1, 3, 7, 50}) {
    std::vector<float> flat(1000, 2.5f);
    for (uint64_t seed = 0; seed < 200; ++seed) {
      std::vector<float> logits = flat;
      EXPECT_LT(Sampler({.temperature = 1, .top_k = k, .seed = seed}).sample(logits, {}).value(), k);
    }
  }
}

// Every option against the definition: nothing that the definition excludes is ever drawn, and the counts agree within 5 sigma.
TEST(Sampler, DrawsAsDefined) {
  const SamplerOptions cases[] = {
      {.temperature = 1},
      {.temperature = 0.3f},
      {.temperature = 1e-30f},
      {.temperature = 100},
      {.temperature = 1, .top_k = 1},
      {.temperature = 1, .top_k = 5},
      {.temperature = 2, .top_k = 600},
      {.temperature = 1, .top_p = 0.5f},
      {.temperature = 3, .top_p = 0.95f},
      {.temperature = 1, .top_p = 1e-9f},
      {.temperature = 1, .min_p = 0.1f},
      {.temperature = 1, .min_p = 1},
      {.temperature = 1.5f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f, .repetition_penalty = 1.3f},
      {.temperature = 1, .repetition_penalty = 0.8f},
  };
  constexpr int kDraws = 20000;
  const std::vector<int32_t> history = {3, 5, 5, 90};
  for (size_t n : {6u, 700u}) {
    std::vector<float> logits = noise(n, 11, n == 6 ? 4 : 12);
    logits[1] = -kInf;
    for (SamplerOptions o : cases) {
      o.seed = 1234;
      std::vector<double> p = reference(logits, o, history);
      Sampler sampler(o);
      std::vector<int> counts(n);
      for (int i = 0; i < kDraws; ++i) {
        std::vector<float> copy = logits;
        ++counts[size_t(sampler.sample(copy, history).value())];
      }
      for (size_t i = 0; i < n; ++i) {
        double sigma = std::sqrt(p[i] * (1 - p[i]) * kDraws);
        EXPECT_NEAR(counts[i], p[i] * kDraws, 5 * sigma + 1e-6 + (p[i] > 0 && sigma < 1 ? 5 : 0))
            << "token " << i << " case " << &o - cases;
      }
    }
  }
}

// The same numbers on every machine: these ids were written down once, and must never change.
TEST(Sampler, SameSeedSameTokensEverywhere) {
  Sampler sampler({.temperature = 0.8f, .top_k = 50, .top_p = 0.95f, .min_p = 0.01f, .repetition_penalty = 1.1f, .seed = 42});
  std::vector<int32_t> history;
  for (uint64_t step = 0; step < 12; ++step) {
    std::vector<float> logits = noise(32000, 100 + step, 20);
    history.push_back(sampler.sample(logits, history).value());
  }
  EXPECT_EQ(history, (std::vector<int32_t>{1544, 15504, 24107, 30537, 31468, 25557, 23260, 28560, 26140, 21610, 24477, 9838}));
  Sampler plain({.temperature = 1.7f, .seed = 7});
  history.clear();
  for (uint64_t step = 0; step < 8; ++step) {
    std::vector<float> logits = noise(5000, 7 + step, 20);
    history.push_back(plain.sample(logits, {}).value());
  }
  EXPECT_EQ(history, (std::vector<int32_t>{3482, 1383, 4051, 4894, 4974, 4324, 290, 451}));
}

// A device that draws takes the marks that draws here would have taken; what it drew in vain is drawn again.
TEST(Sampler, ADeviceGetsTheSameMarks) {
  const SamplerOptions options = {.temperature = 1, .seed = 11};
  Sampler here(options), there(options);
  const std::vector<float> flat(1000, 0.0f);
  for (int i = 0; i < 20; ++i) {
    there.draw();
    there.draw();
    there.rewind();
    const Draw draw = there.draw();
    there.take();
    std::vector<float> logits = flat;
    EXPECT_EQ(*here.sample(logits, {}), int32_t(draw.mark * 1000));
  }
  EXPECT_EQ(Sampler({.top_k = 5}).draw().temperature, 0);
}

}  // namespace
}  // namespace sb
