#include "quantize/give_back.h"

#include <gtest/gtest.h>

namespace sb {
namespace {

TEST(GiveBack, LeastLossPerByteGoesFirst) {
  // Lost share of the output and bytes: 0.1 / 100, 0.1 / 400, 0.02 / 100, a matrix without inputs, 0.1 / 100 again.
  const std::vector<RefinementValue> values = {{"dear", 12, 2, 100, 100},
                                               {"large", 1.2, 0.2, 10, 400},
                                               {"small", 3, 1, 100, 100},
                                               {"dead", 0, 0, 0, 100},
                                               {"as dear", 120, 20, 1000, 100}};
  EXPECT_EQ(give_back_order(values), (std::vector<std::string>{"dead", "small", "large", "dear", "as dear"}));
  EXPECT_TRUE(give_back_order({}).empty());
}

}  // namespace
}  // namespace sb
