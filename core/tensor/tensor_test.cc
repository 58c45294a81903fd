#include "tensor/tensor.h"

#include <gtest/gtest.h>

namespace sb {
namespace {

TEST(Shape, CountsElementsAndRows) {
  struct Row {
    Shape shape;
    int64_t elements, rows;
    const char* text;
  };
  const Row rows[] = {
      {{}, 1, 0, "[]"}, {{5}, 5, 1, "[5]"}, {{3, 5}, 15, 3, "[3, 5]"}, {{2, 3, 4, 5}, 120, 24, "[2, 3, 4, 5]"}, {{3, 0}, 0, 0, "[3, 0]"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(row.shape.elements(), row.elements) << row.text;
    EXPECT_EQ(row.shape.rows(), row.rows) << row.text;
    EXPECT_EQ(row.shape.text(), row.text);
  }
  EXPECT_EQ((Shape{2, 3})[-1], 3);
}

TEST(DenseBytes, Table) {
  struct Row {
    Dtype dtype;
    Shape shape;
    std::optional<uint64_t> bytes;
  };
  const Row rows[] = {
      {Dtype::kF32, {3, 5}, 60},
      {Dtype::kF32, {}, 4},
      {Dtype::kBF16, {0, 5}, 0},
      {Dtype::kQ4_1, {2, 64}, 80},
      {Dtype::kQ6_K, {1, 256}, 210},
      {Dtype::kQ4_1, {64, 33}, std::nullopt},
      {Dtype::kQ4_1, {}, std::nullopt},
      {Dtype::kF32, {-1, 5}, std::nullopt},
      {Dtype::kF32, {INT64_MAX, 2}, std::nullopt},
      {Dtype::kF32, {int64_t(1) << 32, int64_t(1) << 32}, std::nullopt},
      {Dtype::kF32, {int64_t(1) << 61}, std::nullopt},
  };
  for (const Row& row : rows) {
    const Result<uint64_t> n = dense_bytes(row.dtype, row.shape);
    EXPECT_EQ(n.has_value(), row.bytes.has_value()) << row.shape.text();
    if (n && row.bytes) EXPECT_EQ(*n, *row.bytes) << row.shape.text();
    if (!n) EXPECT_EQ(n.error().code(), Code::kShapeMismatch);
  }
}

TEST(Dtype, NumbersAndNamesComeBack) {
  for (size_t i = 0; i < kDtypeCount; ++i) {
    EXPECT_EQ(dtype_from_name(kDtypeRows[i].name), Dtype(i));
    if (kDtypeRows[i].gguf >= 0) EXPECT_EQ(dtype_from_gguf(kDtypeRows[i].gguf), Dtype(i));
  }
  EXPECT_FALSE(dtype_from_gguf(16));
  EXPECT_FALSE(dtype_from_gguf(-1));
  EXPECT_FALSE(dtype_from_name("IQ2_XXS"));
}

}  // namespace
}  // namespace sb
