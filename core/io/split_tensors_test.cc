#include "io/split_tensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace sb {
namespace {

FolderIndex index_of(std::vector<SplitEntry> split) {
  FolderIndex index;
  index.shards = {{"base-00001.safetensors", false, 4000, 100, std::string(64, 'a')}};
  index.split = std::move(split);
  return index;
}

Block floats(std::initializer_list<float> values) {
  auto block = Block::take(Tag::kWeights, values.size() * 4);
  SB_ASSERT(block);
  std::memcpy(block->data(), std::data(values), values.size() * 4);
  return std::move(*block);
}

TensorPlace place(std::string name, int64_t rows, int64_t columns = 2, Dtype dtype = Dtype::kF32) {
  const uint64_t n_bytes = uint64_t(rows * columns) * (dtype == Dtype::kF32 ? 4 : 2);
  return {.name = std::move(name), .dtype = dtype, .shape = {rows, columns}, .offset = 0, .n_bytes = n_bytes};
}

struct Taken {
  std::vector<std::string> names;
  std::vector<float> values;
  Shape shape;
  TakeFrom take() {
    return [this](const std::string&, const TensorPlace& p, TensorBytes bytes) -> Status {
      const Block& block = bytes.block;
      names.push_back(p.name);
      shape = p.shape;
      values.resize(size_t(block.size() / 4));
      std::memcpy(values.data(), block.data(), size_t(block.size()));
      return {};
    };
  }
};

TEST(PieceJoiner, JoinsPiecesAndPassesTheRest) {
  const FolderIndex index = index_of({{"a", 3, 2}});
  Taken taken;
  std::vector<uint64_t> held;
  PieceJoiner joiner(index, true, taken.take(), [&](uint64_t n) { held.push_back(n); });
  ASSERT_TRUE(joiner.take("f", place("b#0", 1), floats({7, 8})));
  EXPECT_EQ(taken.names, std::vector<std::string>{"b#0"});
  ASSERT_TRUE(joiner.take("f", place("a#0", 2), floats({1, 2, 3, 4})));
  EXPECT_EQ(joiner.finish("f").error().code(), Code::kTensorMissing);
  ASSERT_TRUE(joiner.take("f", place("c", 1), floats({9, 9})));
  ASSERT_TRUE(joiner.take("f", place("a#1", 1), floats({5, 6})));
  EXPECT_EQ(taken.names, (std::vector<std::string>{"b#0", "c", "a"}));
  EXPECT_EQ(taken.values, (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(taken.shape, (Shape{3, 2}));
  EXPECT_EQ(held, (std::vector<uint64_t>{24, 8}));
  EXPECT_TRUE(joiner.finish("f"));
}

TEST(PieceJoiner, WithoutBytesItStillLooksAtThem) {
  const FolderIndex index = index_of({{"a", 2, 2}});
  Taken taken;
  PieceJoiner joiner(index, false, taken.take());
  ASSERT_TRUE(joiner.take("f", place("a#0", 1), floats({1, 2})));
  const Status bad = joiner.take("f", place("a#1", 1), floats({1, std::nanf("")}));
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code(), Code::kWeightsNotFinite);
}

TEST(PieceJoiner, Refuses) {
  struct Row {
    std::vector<TensorPlace> pieces;
    const char* says;
    SplitEntry entry = {"a", 3, 2};
  };
  const Row rows[] = {
      {{place("a#1", 2)}, "not the piece that follows"},
      {{place("a#0", 2), place("a#0", 2)}, "not the piece that follows"},
      {{place("a#00", 2)}, "not the piece that follows"},
      {{place("a#0", 2), place("a#1", 1, 3)}, "another type or other rows"},
      {{place("a#0", 2), place("a#1", 1, 2, Dtype::kF16)}, "another type or other rows"},
      {{place("a#0", 2), place("a#1", 2)}, "beyond the tensor's rows"},
      {{place("a#0", 1), place("a#1", 1)}, "do not sum up"},
      {{place("a#0", 3)}, "do not sum up"},
      {{place("a#0", 2)}, "more bytes than the folder", {"a", int64_t(1) << 30, 2}},
  };
  for (const Row& row : rows) {
    const FolderIndex index = index_of({row.entry});
    Taken taken;
    PieceJoiner joiner(index, true, taken.take());
    Status last;
    for (const TensorPlace& piece : row.pieces) {
      ASSERT_TRUE(last) << row.says;
      auto block = Block::take(Tag::kWeights, piece.n_bytes);
      ASSERT_TRUE(block);
      std::memset(block->data(), 0, size_t(block->size()));
      last = joiner.take("f", piece, std::move(*block));
    }
    ASSERT_FALSE(last) << row.says;
    EXPECT_EQ(last.error().code(), Code::kModelCorrupt);
    EXPECT_NE(last.error().message().find(row.says), std::string::npos) << last.error().message();
  }
}

}  // namespace
}  // namespace sb
