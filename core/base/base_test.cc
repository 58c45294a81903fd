#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/json.h"
#include "base/memory.h"
#include "base/result.h"

namespace sb {
namespace {

TEST(Error, FillsItsSentence) {
  Error e(Code::kModelTruncated, {{"file", "a.gguf"}, {"size", 10}, {"needed", 20}});
  EXPECT_EQ(e.message(), "a.gguf ends at byte 10, but its index needs 20");
  EXPECT_TRUE(e.retryable());
  auto j = json_parse(e.to_json(), "error");
  ASSERT_TRUE(j);
  EXPECT_EQ((*j)["code"], "kModelTruncated");
  EXPECT_EQ((*j)["fields"]["needed"], "20");
}

TEST(Error, EveryRowFillsWithoutItsFields) {
  for (const ErrorRow& row : kErrorRows) {
    Error e(Code(&row - kErrorRows), {});
    EXPECT_FALSE(e.message().empty()) << row.name;
    EXPECT_FALSE(e.hint().empty()) << row.name;
  }
}

TEST(Json, SaysWhereItBreaks) {
  auto j = json_parse("{\"a\": [1, 2,, 3]}", "config.json");
  ASSERT_FALSE(j);
  EXPECT_EQ(j.error().message(), "config.json is not valid JSON: it breaks at byte 13");
}

TEST(Json, DeepNestingIsNoCrash) {
  std::string deep(2'000'000, '[');
  EXPECT_FALSE(json_parse(deep, "deep"));
}

TEST(Memory, BooksFollowBlocks) {
  MemoryReport before = memory_report();
  {
    auto block = Block::take(Tag::kKv, 1000);
    ASSERT_TRUE(block);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block->data()) % 64, 0u);
    EXPECT_EQ(memory_report().by_tag[size_t(Tag::kKv)].current, before.by_tag[size_t(Tag::kKv)].current + 1024);
    Block moved = std::move(*block);
    EXPECT_EQ(memory_report().by_tag[size_t(Tag::kKv)].current, before.by_tag[size_t(Tag::kKv)].current + 1024);
  }
  EXPECT_EQ(memory_report().by_tag[size_t(Tag::kKv)].current, before.by_tag[size_t(Tag::kKv)].current);
}

TEST(Memory, WeightsComeZeroedAndApart) {
  std::vector<Block> blocks;
  for (const uint64_t n_bytes : {uint64_t(70'001), uint64_t(64), uint64_t(5) << 20, uint64_t(65'536), uint64_t(300'000)}) {
    auto block = Block::take(Tag::kWeights, n_bytes);
    ASSERT_TRUE(block);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block->data()) % 64, 0u);
    EXPECT_TRUE(std::ranges::all_of(block->bytes(), [](std::byte b) { return b == std::byte(0); }));
    std::ranges::fill(block->bytes(), std::byte(blocks.size() + 1));
    blocks.push_back(std::move(*block));
    if (blocks.size() == 3) blocks[0] = {};  // its neighbour keeps what it has
  }
  for (size_t i = 1; i < blocks.size(); ++i) {
    EXPECT_TRUE(std::ranges::all_of(blocks[i].bytes(), [&](std::byte b) { return b == std::byte(i + 1); })) << i;
  }
}

TEST(Memory, TooMuchIsAnError) {
  auto block = Block::take(Tag::kWeights, UINT64_MAX - 10);
  ASSERT_FALSE(block);
  EXPECT_EQ(block.error().code(), Code::kMemoryExhausted);
}

}  // namespace
}  // namespace sb
