#include "runtime/draft.h"

#include <gtest/gtest.h>

#include <vector>

namespace sb {
namespace {

TEST(Draft, FollowsWhatStoodBefore) {
  struct Row {
    std::vector<int32_t> ids;
    int64_t n;
    std::vector<int32_t> draft;
    const char* why;
  };
  const Row rows[] = {
      {{1, 2, 3, 4, 5, 1, 2, 3}, 2, {4, 5}, "three alike"},
      {{9, 2, 3, 4, 5, 1, 2, 3}, 2, {4, 5}, "two alike"},
      {{1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, 2, {4, 9}, "three alike go before a newer place with two"},
      {{1, 2, 7, 1, 2, 8, 1, 2}, 1, {8}, "the newest place"},
      {{1, 2, 3, 1, 2}, 8, {3, 1, 2}, "no more than there is"},
      {{5, 5, 5}, 3, {5}, "the end may lie on its own beginning"},
      {{1, 2, 3, 4}, 2, {}, "nothing alike"},
      {{3, 1, 3}, 2, {}, "one token alone says too little"},
      {{1, 2, 3, 1, 2}, 0, {}, "none wanted"},
      {{}, 2, {}, "no tokens"},
      {{1}, 2, {}, "one token"},
  };
  for (const Row& row : rows) {
    const std::span<const int32_t> got = draft(row.ids, row.n);
    EXPECT_EQ(std::vector<int32_t>(got.begin(), got.end()), row.draft) << row.why;
  }
}

}  // namespace
}  // namespace sb
