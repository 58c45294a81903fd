#include "formats/levels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace sb {
namespace {

/// v as a normal number of the type: the nearest with so many binary digits.
float stored(float v, Dtype dtype) {
  const int digits = dtype == Dtype::kF16 ? 11 : dtype == Dtype::kBF16 ? 8 : 24;
  int exponent;
  const double digits_of = std::frexp(double(v), &exponent);
  return float(std::ldexp(std::nearbyint(std::ldexp(digits_of, digits)), exponent - digits));
}

/// What the two planes make of a row, by the planes' own definition.
std::vector<float> decoded(Levels levels, const std::vector<float>& row, float scale) {
  const int64_t k = plane_columns(int64_t(row.size()));
  std::vector<uint32_t> words(size_t(64 * 2 * k / 32));
  std::vector<float> scales(64, scale), out(static_cast<size_t>(k));
  pack_levels(levels, row, scale, words.data(), k / 32);
  const PlaneMatrix m{64, k, 64, 0, nullptr, 1, 1, {{levels_code(levels), words.data(), scales.data(), nullptr}, {}}};
  decode_plane_row(m, 0, out.data());
  out.resize(row.size());
  return out;
}

TEST(Levels, RowsOfTheirLevelsComeBackBitByBit) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> scales(1e-3f, 4.0f);
  for (const Levels levels : {Levels::kTernary, Levels::kFour}) {
    for (const Dtype dtype : {Dtype::kF32, Dtype::kF16, Dtype::kBF16}) {
      for (int round = 0; round < 4000; ++round) {
        const float s = scales(random);
        std::vector<float> row(size_t(1 + random() % 70));
        for (float& w : row)
          w = stored(s * (levels == Levels::kTernary ? float(int(random() % 3) - 1) : float(int(random() % 4)) - 1.5f), dtype);
        const std::optional<float> scale = levels_scale(levels, row, dtype);
        ASSERT_TRUE(scale) << levels_name(levels) << " " << dtype_name(dtype) << " " << s;
        const std::vector<float> got = decoded(levels, row, *scale);
        for (size_t k = 0; k < row.size(); ++k)
          ASSERT_EQ(stored(got[k], dtype), row[k]) << levels_name(levels) << " " << dtype_name(dtype) << " scale " << s;
      }
    }
  }
}

TEST(Levels, OtherRowsHaveNoScale) {
  struct Row {
    std::vector<float> row;
    bool is_ternary, is_four;
  };
  for (const Row& r : {Row{{0, 0, 0}, true, true}, Row{{0.5f, -0.5f}, true, true}, Row{{0.5f, 0, -0.5f}, true, false},
                       Row{{0.5f, 1.5f, -0.5f, -1.5f}, false, true}, Row{{1.5f, -0.5f}, false, true}, Row{{0.5f, 1.5f, 0}, false, false},
                       Row{{0.5f, 1.49f}, false, false}, Row{{0.5f, 1.5f, 2.5f}, false, false}, Row{{1, 2, 3}, false, false}}) {
    EXPECT_EQ(levels_scale(Levels::kTernary, r.row, Dtype::kF32).has_value(), r.is_ternary) << r.row[0] << " " << r.row[1];
    EXPECT_EQ(levels_scale(Levels::kFour, r.row, Dtype::kF32).has_value(), r.is_four) << r.row[0] << " " << r.row[1];
  }
  // 1.49 is 1.5 where only 8 bits are kept; what does not fit there either is refused.
  EXPECT_TRUE(levels_scale(Levels::kFour, std::vector<float>{0.5f, stored(1.497f, Dtype::kBF16)}, Dtype::kBF16));
  EXPECT_FALSE(levels_scale(Levels::kFour, std::vector<float>{0.5f, stored(1.4f, Dtype::kBF16)}, Dtype::kBF16));
}

}  // namespace
}  // namespace sb
