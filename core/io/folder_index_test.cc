#include "io/folder_index.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace sb {
namespace {

const std::string kSum(64, 'a');

FolderIndex small_index() {
  FolderIndex index;
  index.shards = {{"base-00001.safetensors", false, 300, 100, kSum},
                  {"base-00002.safetensors", false, 150, 50, kSum},
                  {"refine-00001.safetensors", true, 90, 40, kSum}};
  index.components = {{"embeddings", false, "base-00001.safetensors", 100, 200, kSum, {}},
                      {"layer_0", false, "base-00001.safetensors", 200, 300, kSum, {}},
                      {"lm_head", false, "base-00002.safetensors", 50, 150, kSum, {"embeddings"}},
                      {"layer_0.refine", true, "refine-00001.safetensors", 40, 90, kSum, {"layer_0"}}};
  index.matrices = {{"qkv", "coded3", "coded2", 96, 64, {{"q", 64}, {"k", 16}, {"v", 16}}},
                    {"embed", kRows8, "", 100, 64, {{"embed", 100}}}};
  index.give_back = {"qkv"};
  index.split = {{"embed.rows8", 100, 3}};
  return index;
}

TEST(FolderIndex, WhatIsWrittenComesBack) {
  const std::string text = folder_index_json(small_index());
  const auto index = parse_folder_index(text, "i");
  ASSERT_TRUE(index) << index.error().message();
  EXPECT_EQ(folder_index_json(*index), text);
  EXPECT_EQ(index->matrices[0].rows[1], (std::pair<std::string, int64_t>("k", 16)));
  EXPECT_EQ(index->matrices[0].refine, "coded2");
  EXPECT_EQ(index->components[3].needs, std::vector<std::string>{"layer_0"});
  EXPECT_EQ(index->components[3].end, 90u);
  EXPECT_TRUE(index->shards[2].is_refinement);
  EXPECT_EQ(index->give_back, std::vector<std::string>{"qkv"});
  EXPECT_EQ(index->shard_bytes(PlaneSets::kBase), 450u);
  EXPECT_EQ(index->shard_bytes(PlaneSets::kFull), 540u);
  EXPECT_TRUE(parse_folder_index(folder_index_json({}), "i"));
}

TEST(FolderIndex, AFlippedByteAnywhere) {
  const std::string text = folder_index_json(small_index());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] ^= 1;
    const auto index = parse_folder_index(damaged, "m/subbyte.index.json");
    ASSERT_FALSE(index) << i;
    EXPECT_NE(index.error().message().find("m/subbyte.index.json"), std::string::npos);
    EXPECT_FALSE(parse_folder_index(std::string_view(text).substr(0, i), "i")) << i;
  }
}

TEST(FolderIndex, Refuses) {
  struct Row {
    const char* at;     // JSON pointer
    const char* value;  // in its place; nullptr: nothing
    const char* says;   // part of the message
    Code code = Code::kModelCorrupt;
  };
  const Row rows[] = {
      {"/split", "{}", "its split is no list"},
      {"/split/0/name", "\"\"", "its name is no text"},
      {"/split/0/rows", "1", "its rows"},
      {"/split/0/pieces", "1", "its pieces"},
      {"/split/0/pieces", "70000", "its pieces"},
      {"/format", "\"other\"", "format: it is not"},
      {"/format", "3", "format: it is not"},
      {"/version", nullptr, "version"},
      {"/version", "2", "is of version 2, but this subbyte reads version 1", Code::kVersionUnknown},
      {"/shards", nullptr, "shards"},
      {"/shards", "{}", "its shards is no list"},
      {"/shards/1", "3", "shards[1]: it is no JSON object"},
      {"/shards/0/file", "\"../base-00001.safetensors\"", "not the name of a file in this folder"},
      {"/shards/0/file", "\"a/../b\"", "not the name"},
      {"/shards/0/file", "\"/etc/passwd\"", "not the name"},
      {"/shards/0/file", "\"https://elsewhere/x\"", "not the name"},
      {"/shards/0/file", "\"a\\u0000b\"", "not the name"},
      {"/shards/0/file", "\"\"", "its file is no text"},
      {"/shards/1/file", "\"base-00001.safetensors\"", "occurs twice"},
      {"/shards/0/set", "\"both\"", "neither base nor refine"},
      {"/shards/0/set", "\"refine\"", "a base shard stands after a refinement's"},
      {"/shards/0/bytes", "-1", "its bytes is no whole number"},
      {"/shards/0/bytes", "300.0", "its bytes is no whole number"},
      {"/shards/0/bytes", "\"300\"", "its bytes is no whole number"},
      {"/shards/0/bytes", "18446744073709551615", "its bytes is no whole number"},
      {"/shards/0/bytes", "299", "its bytes end beyond its shard"},
      {"/shards/0/bytes", "301", "its components end at byte 300 of 301"},
      {"/shards/0/head_bytes", "300", "its head_bytes is no whole number"},
      {"/shards/0/head_bytes", "99", "begins at byte 100, not 99"},
      {"/shards/0/head_sha256", "\"abc\"", "64 hexadecimal"},
      {"/shards/0/head_sha256", nullptr, "64 hexadecimal"},
      {"/components/0/name", nullptr, "its name is no text"},
      {"/components/1/name", "\"embeddings\"", "occurs twice"},
      {"/components/0/set", "\"refine\"", "its shard is of the other set"},
      {"/components/0/shard", "\"base-00009.safetensors\"", "not in the list of shards"},
      {"/components/0/shard", "\"base-00002.safetensors\"", "end beyond"},
      {"/components/2/shard", "\"base-00001.safetensors\"", "begins at byte 50, not 300"},
      {"/components/0/bytes", "[100]", "not a begin and an end"},
      {"/components/0/bytes", "7", "no list"},
      {"/components/0/bytes", "[100, 100]", "run backwards"},
      {"/components/0/bytes", "[100, 201]", "begins at byte 200, not 201"},
      {"/components/0/bytes", "[100, 199]", "begins at byte 200, not 199"},
      {"/components/1/bytes", "[150, 300]", "begins at byte 150, not 200"},
      {"/components/0/bytes/1", "1e30", "its end is no whole number"},
      {"/components/0/sha256",
       "\""
       "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
       "\"",
       "64 hexadecimal"},
      {"/components/2/needs", "[\"layer_7\"]", "it needs \"layer_7\", which does not stand before it"},
      {"/components/0/needs", "[\"embeddings\"]", "does not stand before it"},
      {"/components/2/needs", "[3]", "does not stand before it"},
      {"/components/2/needs", "[\"layer_0\", \"layer_0\"]", "twice"},
      {"/components/2/needs", "\"layer_0\"", "no list"},
      {"/matrices/0/name", "\"embed\"", "the matrix embed occurs twice"},
      {"/matrices/0/name", "\"qkv.refine\"", "ends like a refinement's"},
      {"/matrices/0/format", "\"coded5\"", "unknown"},
      {"/matrices/0/format", "\"rows8\"", "its refinement's format is unknown"},
      {"/matrices/0/refine", "\"rows8\"", "its refinement's format is unknown"},
      {"/matrices/0/refine", "\"\"", "its refinement's format is unknown"},
      {"/matrices/0/refine", "3", "its refinement's format is unknown"},
      {"/matrices/0/shape", "[96]", "not [N, K]"},
      {"/matrices/0/shape", "[96, 0]", "its K is no whole number"},
      {"/matrices/0/shape", "[96, 2147483649]", "its K is no whole number"},
      {"/matrices/0/shape", "[95, 64]", "its rows are more than N"},
      {"/matrices/0/shape", "[97, 64]", "do not sum to N"},
      {"/matrices/1/shape", "[100, 48]", "no multiple of 32"},
      {"/matrices/0/rows", "[]", "do not sum to N"},
      {"/matrices/0/rows/0", "[\"q\"]", "not made of a tensor and a number"},
      {"/matrices/0/rows/0", "[\"q\", 0]", "its rows is no whole number"},
      {"/matrices/0/rows/0", "[\"k\", 64]", "the tensor \"k\" occurs twice"},
      {"/matrices/0/rows/0", "[\"embed\", 64]", "the tensor \"embed\" occurs twice"},
      {"/matrices/1/rows", "[[\"a\", 50], [\"b\", 50]]", "rows8 holds one tensor"},
      {"/give_back", "[\"qkv\", \"qkv\"]", "occurs twice"},
      {"/give_back", "[\"embed\"]", "no matrix with a refinement"},
      {"/give_back", "[7]", "no matrix with a refinement"},
      {"/give_back", nullptr, "give_back"},
  };
  for (const Row& row : rows) {
    OrderedJson json = *json_parse_ordered(folder_index_json(small_index()), "");
    json.erase("index_sha256");
    const OrderedJson::json_pointer at(row.at);
    if (row.value) {
      json[at] = *json_parse_ordered(row.value, row.value);
    } else {
      json[at.parent_pointer()].erase(at.back());
    }
    const auto index = parse_folder_index(with_index_sum(json_text(json)), "m/subbyte.index.json");
    ASSERT_FALSE(index) << row.at << " " << (row.value ? row.value : "");
    EXPECT_EQ(index.error().code(), row.code) << row.at;
    EXPECT_NE(index.error().message().find(row.says), std::string::npos) << row.at << ": " << index.error().message();
    EXPECT_NE(index.error().message().find("m/subbyte.index.json"), std::string::npos) << row.at;
  }
  for (const char* text : {"", "[]", "3", "[[[["}) EXPECT_FALSE(parse_folder_index(text, "i")) << text;
}

}  // namespace
}  // namespace sb
