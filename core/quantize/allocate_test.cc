#include "quantize/allocate.h"

#include <gtest/gtest.h>

#include <random>

namespace sb {
namespace {

TEST(Allocate, IsOptimalAtItsOwnBytesAndNeverAbove) {
  // Against every combination of small random problems: at the bytes that the greedy walk spends, nothing is better than its loss by more
  // than what the last unaffordable step leaves open.
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<AllocationGroup> groups;
    for (int g = 0; g < 5; ++g) {
      AllocationGroup group{"g" + std::to_string(g), {}};
      const double scale = 1 + double(random() % 100);
      const uint64_t size = 10 + random() % 50;
      for (int bits = 2; bits <= 4; ++bits)
        group.options.push_back({std::to_string(bits), size * uint64_t(bits), scale / double(1 << (2 * bits))});
      groups.push_back(group);
    }
    uint64_t minimum = 0;
    allocate(groups, UINT64_MAX, &minimum);
    const uint64_t budget = minimum + random() % (minimum + 1);
    const std::vector<size_t> choice = allocate(groups, budget, nullptr);
    ASSERT_EQ(choice.size(), groups.size());
    uint64_t bytes = 0;
    double loss = 0, best_within_hull = 1e9;
    for (size_t g = 0; g < groups.size(); ++g) {
      bytes += groups[g].options[choice[g]].n_bytes;
      loss += groups[g].options[choice[g]].loss;
    }
    ASSERT_LE(bytes, budget);
    for (int code = 0; code < 243; ++code) {
      uint64_t b = 0;
      double l = 0;
      for (int g = 0, c = code; g < 5; ++g, c /= 3) {
        b += groups[size_t(g)].options[size_t(c % 3)].n_bytes;
        l += groups[size_t(g)].options[size_t(c % 3)].loss;
      }
      if (b <= bytes) best_within_hull = std::min(best_within_hull, l);
    }
    // The walk may leave one step of the hull unused; it is not worse than 1.5 × the best at the same bytes here.
    EXPECT_LE(loss, 1.5 * best_within_hull) << "round " << round;
  }
}

TEST(Allocate, SaysTheMinimum) {
  uint64_t minimum = 0;
  EXPECT_TRUE(allocate({{"a", {{"coded2", 100, 1}, {"coded3", 150, 0.2}}}}, 99, &minimum).empty());
  EXPECT_EQ(minimum, 100u);
}

TEST(Allocate, SkipsOptionsAboveTheHull) {
  // coded3 costs nearly as many bytes as coded4 and loses nearly as much as coded2: never taken.
  const std::vector<size_t> choice = allocate({{"a", {{"coded2", 100, 1}, {"coded3", 195, 0.9}, {"coded4", 200, 0.1}}}}, 200, nullptr);
  EXPECT_EQ(choice, std::vector<size_t>{2});
  EXPECT_EQ(allocate({{"a", {{"coded2", 100, 1}, {"coded3", 195, 0.9}, {"coded4", 200, 0.1}}}}, 199, nullptr), std::vector<size_t>{0});
}

}  // namespace
}  // namespace sb
