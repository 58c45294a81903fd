// A GGUF's vocabulary written as tokenizer.json and read back must be the same tokenizer.
#include "input/tokenizer_export.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/json.h"
#include "input/model.h"

namespace sb {
namespace {

// What byte level, SentencePiece and both look at differently: spaces, digits, marks, characters of one to four bytes, tokens' own
// spellings.
const char* const kTexts[] = {"",
                              " ",
                              "   ",
                              "ab ab",
                              "  ab\t\n\n a b  ",
                              "abababab",
                              "I'll 12345 x2",
                              "é\n",
                              "日本語 x̂ \u00a0\u3000",
                              "👩‍👩‍👧 ab",
                              "▁a ▁▁ Ġa <0x0A> \"\\",
                              "<s>ab</s> <tool>a<tool> <|end|>",
                              "<s",
                              "cafe\u0301"};

void expect_same(const Tokenizer& a, const Tokenizer& b, std::string_view text) {
  for (bool add_special : {false, true}) {
    auto ids = a.encode(text, add_special), again = b.encode(text, add_special);
    ASSERT_TRUE(ids && again) << text;
    EXPECT_EQ(*ids, *again) << text;
    for (bool skip_special : {false, true}) EXPECT_EQ(*a.decode(*ids, skip_special), *b.decode(*ids, skip_special)) << text;
  }
}

/// The exported tokenizer, held against the vocabulary's own over the texts above, each id alone, and random texts of its tokens.
void expect_round_trip(const GgufVocab& vocab) {
  auto original = Tokenizer::from_gguf(vocab);
  ASSERT_TRUE(original) << original.error().message();
  auto text = tokenizer_json_of(vocab);
  ASSERT_TRUE(text) << text.error().message();
  auto copy = Tokenizer::from_json(*text);
  ASSERT_TRUE(copy) << copy.error().message() << "\n" << *text;
  ASSERT_EQ(original->vocab_size(), copy->vocab_size());
  for (const char* line : kTexts) expect_same(*original, *copy, line);
  for (int32_t id = 0; size_t(id) < original->vocab_size(); ++id) {
    EXPECT_EQ(original->token(id), copy->token(id));
    EXPECT_EQ(original->is_special(id), copy->is_special(id)) << id;
    for (bool skip_special : {false, true})
      EXPECT_EQ(*original->decode(std::vector{id, id}, skip_special), *copy->decode(std::vector{id, id}, skip_special)) << id;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    std::string line;
    for (uint32_t k = random() % 8; k-- > 0;) {
      const int32_t id = int32_t(random() % original->vocab_size());
      line += random() % 4 == 0 ? kTexts[random() % std::size(kTexts)] : *original->decode(std::vector{id}, false);
    }
    expect_same(*original, *copy, line);
  }
}

GgufVocab sentencepiece() {
  GgufVocab v;
  v.model = "llama";
  v.tokens = {"<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "<0xA9>", "▁",  "a",  "b",
              "ab",    "▁a",  "▁ab",  "<tool>", "ba",     "aba",    "▁▁", "\"", "\\"};
  v.scores = {0, 0, 0, 0, 0, 0, -9, -8, -7, -2, -3, -1, 0, -2, -2, -4, -5, -6};
  v.types = {2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 4, 1, 5, 4, 1, 1};
  v.bos = 1, v.eos = 2, v.unk = 0;
  return v;
}

/// Every byte, some merges, and tokens that no merge makes.
GgufVocab byte_level(const char* pre) {
  GgufVocab v;
  v.model = "gpt2";
  v.pre = pre;
  for (int b = 0; b < 256; ++b) v.tokens.emplace_back(byte_letter(uint8_t(b)));
  for (const char* token : {"ab", "Ġa", "Ġab", "12", "123", "ĠĠ", "Ã©", "aba", "<s>", "</s>", "<tool>", "<|end|>"})
    v.tokens.emplace_back(token);
  v.merges = {"a b", "Ġ ab", "Ġ a", "1 2", "12 3", "Ġ Ġ", "Ã ©"};
  v.types.assign(v.tokens.size(), 1);
  v.types[264] = v.types[265] = v.types[267] = 3, v.types[266] = 4;
  v.bos = 264, v.eos = 265;
  return v;
}

TEST(TokenizerExport, SentencePiece) {
  GgufVocab v = sentencepiece();
  expect_round_trip(v);
  v.add_space_prefix = false;  // Gemma
  expect_round_trip(v);
  v.add_bos = false, v.add_eos = true;
  expect_round_trip(v);
  v.add_eos = false;
  expect_round_trip(v);
  v.unk = -1;
  expect_round_trip(v);
  v.types.clear();  // then the named ids are the special ones
  expect_round_trip(v);
}

TEST(TokenizerExport, ByteLevel) {
  for (const char* pre : {"", "gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
                          "gpt-4o", "tekken", "bloom", "viking"}) {
    SCOPED_TRACE(pre);
    expect_round_trip(byte_level(pre));
  }
  GgufVocab v = byte_level("smollm");
  v.add_bos = v.add_eos = true;
  expect_round_trip(v);
}

// A byte without a token parts its neighbours: "a?b" is not "ab".
TEST(TokenizerExport, BytesWithoutAToken) {
  GgufVocab v = byte_level("gpt-2");
  for (const char* letter : {"?", "\\", "]", "^", "-", "Ã", "Ł", "Ģ"}) *std::find(v.tokens.begin(), v.tokens.end(), letter) += " (gone)";
  v.merges.pop_back();
  expect_round_trip(v);
  auto t = Tokenizer::from_json(*tokenizer_json_of(v));
  ASSERT_TRUE(t);
  EXPECT_EQ(t->encode("a?b^ab", false)->size(), 3u);
  v.pre = "llama-bpe";
  EXPECT_EQ(tokenizer_json_of(v).error().code(), Code::kTokenizerUnsupported);
}

TEST(TokenizerExport, TwinsAndWhatIsNotUtf8) {
  GgufVocab v = byte_level("gpt-2");
  for (const char* token : {"<pad>", "<pad>", "ab", "\xFF\xFE", ""}) v.tokens.emplace_back(token);
  v.types.insert(v.types.end(), {4, 3, 1, 1, 3});
  expect_round_trip(v);
}

// The parts that other readers of the file look for.
TEST(TokenizerExport, IsAHuggingFaceFile) {
  const Json j = *json_parse(*tokenizer_json_of(sentencepiece()), "tokenizer.json");
  EXPECT_EQ(j["version"], "1.0");
  EXPECT_EQ(j["model"]["unk_token"], "<unk>");
  EXPECT_EQ(j["model"]["vocab"]["▁ab"], 11);
  // By score: ▁ab, then those of −2 with the longer left part first, then ▁a, then ▁▁.
  EXPECT_EQ(json_text(j["model"]["merges"]), R"([["▁a","b"],["▁","ab"],["ab","a"],["a","ba"],["a","b"],["b","a"],["▁","a"],["▁","▁"]])");
  EXPECT_EQ(json_text(j["post_processor"]["single"]), R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}])");
  EXPECT_EQ(json_text(j["post_processor"]["pair"]), R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},)"
                                                    R"({"SpecialToken":{"id":"<s>","type_id":1}},{"Sequence":{"id":"B","type_id":1}}])");
  EXPECT_EQ(j["added_tokens"].size(), 5u);
  EXPECT_EQ(j["added_tokens"][3]["content"], "<tool>");
  EXPECT_EQ(j["added_tokens"][3]["special"], false);
}

TEST(TokenizerExport, RefusesByName) {
  for (const char* model : {"t5", "bert", "rwkv"}) {
    GgufVocab v = sentencepiece();
    v.model = model;
    auto text = tokenizer_json_of(v);
    ASSERT_FALSE(text);
    EXPECT_EQ(text.error().code(), Code::kTokenizerUnsupported);
    EXPECT_NE(text.error().message().find(model), std::string::npos);
  }
  EXPECT_EQ(tokenizer_json_of({}).error().code(), Code::kTokenizerInvalid);
}

}  // namespace
}  // namespace sb
