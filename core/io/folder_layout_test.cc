#include "io/folder_layout.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "io/safetensors.h"

namespace sb {
namespace {

FolderTensor floats(std::string name, int64_t n, std::string component, bool is_refinement = false) {
  return {std::move(name), "F32", {n}, std::move(component), is_refinement};
}

/// Whatever the sizes: heads that a reader of safetensors agrees with, and an index that parses.
void expect_consistent(const FolderLayout& layout, uint64_t most) {
  FolderSums sums(layout);
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    EXPECT_FALSE(sums.is_complete());
    const std::vector<std::byte> zeros(size_t(layout.place(i).n_bytes));
    sums.add(i, std::span(zeros).first(zeros.size() / 3));
    sums.add(i, std::span(zeros).subspan(zeros.size() / 3));
  }
  EXPECT_TRUE(sums.is_complete());
  const auto index = parse_folder_index(folder_index_json(sums.index()), "i");
  ASSERT_TRUE(index) << index.error().message();
  std::vector<std::string> names;
  for (size_t s = 0; s < layout.shards().size(); ++s) {
    const FolderLayout::Shard& shard = layout.shards()[s];
    const auto places = safetensors_parse_head(std::as_bytes(std::span(shard.head)), shard.n_bytes, shard.name);
    ASSERT_TRUE(places) << places.error().message();
    EXPECT_EQ(shard.head.size() % 8, 0u);
    EXPECT_TRUE(shard.n_bytes <= most || places->size() == 1) << shard.name << " has " << shard.n_bytes;
    for (const TensorPlace& place : *places) {
      const auto tensor = std::ranges::find(layout.tensors(), place.name, &FolderTensor::name);
      ASSERT_NE(tensor, layout.tensors().end());
      const FolderLayout::Place& mine = layout.place(size_t(tensor - layout.tensors().begin()));
      EXPECT_EQ(mine.shard, s);
      EXPECT_EQ(mine.offset, place.offset);
      EXPECT_EQ(mine.n_bytes, place.n_bytes);
      EXPECT_EQ(tensor->shape, place.shape);
      names.push_back(place.name);
    }
  }
  EXPECT_EQ(names.size(), layout.tensors().size());
}

std::vector<FolderTensor> two_layers() {
  return {floats("a", 100, "embeddings"),       floats("b", 30, "layer_0"), floats("c", 40, "layer_0"),
          floats("b.r", 20, "layer_0", true),   floats("d", 50, "layer_1"), floats("d.r", 50, "layer_1", true),
          {"e", "U8", {7}, "final_norm", false}};
}

TEST(FolderLayout, AnyShardSize) {
  for (uint64_t most : {0u, 200u, 500u, 700u, 1000u, 1500u, 3000u, 100'000u}) {
    const auto layout = FolderLayout::plan(two_layers(), most);
    ASSERT_TRUE(layout) << layout.error().message();
    expect_consistent(*layout, most);
  }
  EXPECT_TRUE(FolderLayout::plan({}));
}

TEST(FolderLayout, ShardsAndComponentsInLoadOrder) {
  const auto layout = FolderLayout::plan(two_layers(), 1000);
  ASSERT_TRUE(layout);
  std::string text;
  for (const ComponentEntry& c : layout->index().components) {
    text += c.name + "@" + c.shard.substr(0, c.shard.find('.'));
    for (const std::string& need : c.needs) text += "<" + need;
    text += " ";
  }
  EXPECT_EQ(text,
            "embeddings@base-00001 layer_0@base-00002 layer_1@base-00002 final_norm@base-00003 "
            "layer_0.refine@refine-00001<layer_0 layer_1.refine@refine-00001<layer_1 ");
}

TEST(FolderLayout, OnlyAComponentThatIsTooLargeIsSplit) {
  const auto layout = FolderLayout::plan(two_layers(), 450);
  ASSERT_TRUE(layout);
  std::vector<std::string> names, needs;
  for (const ComponentEntry& c : layout->index().components) {
    names.push_back(c.name);
    if (c.name == "layer_0.refine") needs = c.needs;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"embeddings", "layer_0.1", "layer_0.2", "layer_1", "final_norm", "layer_0.refine",
                                             "layer_1.refine"}));
  EXPECT_EQ(needs, (std::vector<std::string>{"layer_0.1", "layer_0.2"}));
}

TEST(FolderLayout, SumsDoNotDependOnTheOrderOfComponents) {
  const auto layout = FolderLayout::plan(two_layers());
  ASSERT_TRUE(layout);
  const std::vector<std::byte> bytes(400, std::byte(7));
  FolderSums forward(*layout), backward(*layout);
  for (size_t i = 0; i < 7; ++i) forward.add(i, std::span(bytes).first(size_t(layout->place(i).n_bytes)));
  for (size_t i : {5u, 6u, 4u, 3u, 1u, 2u, 0u}) backward.add(i, std::span(bytes).first(size_t(layout->place(i).n_bytes)));
  EXPECT_EQ(folder_index_json(forward.index()), folder_index_json(backward.index()));
  EXPECT_EQ(forward.index().components[0].sha256, sha256_hex(bytes));
}

TEST(FolderLayout, Refuses) {
  struct Row {
    std::vector<FolderTensor> tensors;
    const char* says;
  };
  const Row rows[] = {
      {{floats("a", 1, "x"), floats("a", 1, "x")}, "Two tensors are called a"},
      {{floats("", 1, "x")}, "called \"\""},
      {{floats("__metadata__", 1, "x")}, "called \"__metadata__\""},
      {{floats("a", 1, "")}, "no component"},
      {{floats("a", 1, "x"), floats("b", 1, "y"), floats("c", 1, "x")}, "not in one run"},
      {{floats("a", 1, "x"), floats("b", 1, "x.refine", true)}, "nothing to refine"},
      {{floats("a", 1, "x"), floats("b", 1, "x.refine"), floats("c", 1, "x", true)}, "Two components are called x.refine"},
      {{floats("a", 0, "x")}, "shape [0]"},
      {{floats("a", INT64_MAX, "x")}, "has shape"},
      {{{"a", "F64", {1}, "x", false}}, "type F64"},
  };
  for (const Row& row : rows) {
    const auto layout = FolderLayout::plan(row.tensors);
    ASSERT_FALSE(layout) << row.says;
    EXPECT_EQ(layout.error().code(), Code::kArgumentInvalid);
    EXPECT_NE(layout.error().message().find(row.says), std::string::npos) << layout.error().message();
  }
}

}  // namespace
}  // namespace sb
