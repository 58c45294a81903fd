#include "io/weights.h"

#include <gtest/gtest.h>

namespace sb {
namespace {

std::string to_gguf(std::string_view name) {
  if (name == "model.layers.3.self_attn.q_proj.weight") return "blk.3.attn_q.weight";
  if (name == "lm_head.weight") return "";
  return std::string(name);
}

WeightTensor tensor(const char* name) { return {name, "m.gguf", Dtype::kF32, {1, 2}, *Block::take(Tag::kWeights, 8)}; }

TEST(Weights, ScopesWalkTheNames) {
  WeightStore store("m.gguf", Container::kGguf);
  ASSERT_TRUE(store.add(tensor("blk.3.attn_q.weight")));
  ASSERT_TRUE(store.add(tensor("norm.weight")));
  ASSERT_TRUE(store.add(tensor("lm_head.weight")));
  EXPECT_EQ(store.n_bytes(), 24u);

  const Weights w(store, to_gguf);
  const Weights attention = w["model.layers"][3]["self_attn"];
  EXPECT_EQ(attention.tensor("q_proj.weight"), store.find("blk.3.attn_q.weight"));
  EXPECT_EQ(attention["q_proj"].tensor("weight"), store.find("blk.3.attn_q.weight"));
  EXPECT_TRUE(w.has("norm.weight"));
  EXPECT_FALSE(w.has("lm_head.weight"));  // the map says that the file has none
  EXPECT_FALSE(w["model.layers"][4]["self_attn"].has("q_proj.weight"));
  EXPECT_EQ(attention.full_name("q_proj.weight"), "model.layers.3.self_attn.q_proj.weight (there: blk.3.attn_q.weight)");
  EXPECT_EQ(w.full_name("norm.weight"), "norm.weight");
  EXPECT_TRUE(Weights(store, nullptr).has("lm_head.weight"));
}

TEST(WeightStore, ANameTwice) {
  WeightStore store("m", Container::kFolder);
  ASSERT_TRUE(store.add(tensor("a")));
  const Status twice = store.add(tensor("a"));
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message(), "m.gguf is damaged at tensor a: the name occurs twice");
  EXPECT_EQ(store.tensors().size(), 1u);
}

}  // namespace
}  // namespace sb
