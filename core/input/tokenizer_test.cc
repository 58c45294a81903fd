// Every golden tokenizer over every golden text, exactly; GGUF vocabularies made from the same files; hostile files.
#include "input/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/json.h"
#include "input/tokenizer_impl.h"

namespace sb {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string golden(const std::string& kind, const char* file) {
  return read(std::filesystem::path(SB_TESTS) / "golden/tokenizers" / kind / file);
}

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TokenStream stream(tokenizer);
  std::string text;
  for (int32_t id : ids) {
    std::string part = *stream.push(id);
    EXPECT_EQ(utf8_invalid_at(part), std::string_view::npos);
    text += part;
  }
  return text + stream.finish();
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, EncodesAndDecodesExactly) {
  auto tokenizer = Tokenizer::from_json(golden(GetParam(), "tokenizer.json"));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  auto cases = json_parse(golden(GetParam(), "golden.json"), "golden.json");
  ASSERT_TRUE(cases);
  ASSERT_GT(cases->size(), 0u);
  for (const Json& c : *cases) {
    std::string text = *json_string(c, "text");
    auto ids = tokenizer->encode(text, true);
    ASSERT_TRUE(ids) << text;
    EXPECT_EQ(*ids, c["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(*tokenizer->encode(text, false), c["ids_no_special"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(*tokenizer->decode(*ids, true), *json_string(c, "decoded"));
    EXPECT_EQ(*tokenizer->decode(*ids, false), *json_string(c, "decoded_keep_special"));
    EXPECT_EQ(streamed(*tokenizer, *ids), *json_string(c, "decoded"));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Golden,
                         testing::Values("bert", "bert_cased", "clip", "gpt2", "llama2", "llama3", "qwen2", "roberta", "smollm", "t5"),
                         [](const auto& info) { return std::string(info.param); });

// ---- GGUF: the vocabulary of a golden file, as llama.cpp's converter would write it, must give the same ids.

GgufVocab gguf_of(const std::string& kind, const std::string& model, const std::string& pre) {
  Json file = *json_parse(golden(kind, "tokenizer.json"), kind);
  GgufVocab v;
  v.model = model;
  v.pre = pre;
  const Json& m = file["model"];
  v.tokens.resize(m["vocab"].size());
  if (m["vocab"].is_array()) {
    v.tokens.clear();
    for (const Json& entry : m["vocab"]) v.tokens.push_back(entry[0]), v.scores.push_back(entry[1].get<float>());
  } else {
    for (auto& [token, id] : m["vocab"].items()) v.tokens[id.get<size_t>()] = token;
  }
  v.types.assign(v.tokens.size(), 1);
  for (const Json& added : file["added_tokens"]) v.types[added["id"].get<size_t>()] = 3;
  if (m.contains("merges")) {
    for (const Json& pair : m["merges"]) v.merges.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  }
  return v;
}

void expect_same_as_golden(GgufVocab vocab, const std::string& kind) {
  auto tokenizer = Tokenizer::from_gguf(std::move(vocab));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  Json cases = *json_parse(golden(kind, "golden.json"), kind);
  for (const Json& c : cases) {
    auto ids = tokenizer->encode(c["text"].get<std::string>(), true);
    ASSERT_TRUE(ids);
    EXPECT_EQ(*ids, c["ids"].get<std::vector<int32_t>>()) << kind << ": " << c["text"].get<std::string>();
    EXPECT_EQ(*tokenizer->decode(*ids, true), c["decoded"].get<std::string>());
  }
}

TEST(Gguf, ByteLevel) {
  expect_same_as_golden(gguf_of("gpt2", "gpt2", "gpt-2"), "gpt2");
  expect_same_as_golden(gguf_of("qwen2", "gpt2", "qwen2"), "qwen2");
  expect_same_as_golden(gguf_of("smollm", "gpt2", "smollm"), "smollm");
  GgufVocab llama3 = gguf_of("llama3", "gpt2", "dbrx");  // Llama 3's pattern, but this file's merges are not ignored
  llama3.bos = 0;
  llama3.add_bos = true;
  expect_same_as_golden(std::move(llama3), "llama3");
}

TEST(Gguf, Bert) {
  for (const char* kind : {"bert", "bert_cased"}) {
    GgufVocab v = gguf_of(kind, "bert", "");
    for (size_t i = 0; i < v.tokens.size(); ++i) {
      if (v.types[i] != 1) continue;
      if (v.tokens[i].starts_with("##")) {
        v.tokens[i].erase(0, 2);
      } else {
        v.tokens[i].insert(0, "▁");
      }
    }
    v.cls = 2, v.sep = 3, v.unk = 1;
    expect_same_as_golden(std::move(v), kind);
  }
}

TEST(Gguf, T5) {
  GgufVocab v = gguf_of("t5", "t5", "");
  v.eos = 1, v.unk = 2;
  v.remove_extra_whitespaces = false;
  auto tokenizer = Tokenizer::from_gguf(std::move(v));
  ASSERT_TRUE(tokenizer);
  Json cases = *json_parse(golden("t5", "golden.json"), "t5");
  for (const Json& c : cases) {
    std::string text = c["text"];
    if (text.find("  ") != std::string::npos) continue;  // the file's normalizer joins spaces by a rule of its own
    EXPECT_EQ(*tokenizer->encode(text, true), c["ids"].get<std::vector<int32_t>>()) << text;
  }
}

TEST(Gguf, SentencePiece) {
  GgufVocab v;
  v.model = "llama";
  v.tokens = {"<unk>", "<s>", "</s>", "<0x0A>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁a", "▁ab", "<tool>"};
  v.scores = {0, 0, 0, 0, 0, 0, -9, -8, -7, -2, -3, -1, 0};
  v.types = {2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 4};
  v.bos = 1, v.eos = 2, v.unk = 0;
  auto t = Tokenizer::from_gguf(v);
  ASSERT_TRUE(t) << t.error().message();
  EXPECT_EQ(*t->encode("ab ab", true), (std::vector<int32_t>{1, 11, 11}));
  EXPECT_EQ(*t->encode("é\n", false), (std::vector<int32_t>{6, 4, 5, 3}));
  EXPECT_EQ(*t->encode("<tool>a", false), (std::vector<int32_t>{12, 10}));
  EXPECT_EQ(*t->decode(*t->encode("ab é\n", true), true), "ab é\n");
  EXPECT_EQ(t->bos(), 1);
  v.add_space_prefix = false;
  auto gemma = Tokenizer::from_gguf(v);
  EXPECT_EQ(*gemma->encode("ab ab", false), (std::vector<int32_t>{9, 11}));
  EXPECT_EQ(*gemma->decode(std::vector<int32_t>{11}, true), " ab");
}

TEST(Gguf, RefusesByName) {
  struct {
    GgufVocab vocab;
    Code code;
    const char* named;
  } cases[] = {
      {{.model = "rwkv", .tokens = {"a"}}, Code::kTokenizerUnsupported, "rwkv"},
      {{.model = "gpt2", .pre = "from-the-future", .tokens = {"a"}}, Code::kTokenizerUnsupported, "from-the-future"},
      {{.model = "gpt2", .pre = "gpt-2", .tokens = {"a"}, .merges = {"a b"}}, Code::kTokenizerInvalid, "a b"},
      {{.model = "gpt2", .pre = "gpt-2", .tokens = {"a"}, .merges = {"a"}}, Code::kTokenizerInvalid, "\"a\""},
      {{.model = "gpt2", .pre = "gpt-2"}, Code::kTokenizerInvalid, "no tokens"},
      {{.model = "llama", .tokens = {"a"}}, Code::kTokenizerInvalid, "scores"},
      {{.model = "llama", .tokens = {"a"}, .scores = {1, 2}}, Code::kTokenizerInvalid, "one score"},
      {{.model = "gpt2", .tokens = {"a"}, .types = {1, 1}}, Code::kTokenizerInvalid, "one type"},
      {{.model = "gpt2", .pre = "gpt-2", .tokens = {"a"}, .bos = 7}, Code::kTokenizerInvalid, "outside"},
  };
  for (auto& c : cases) {
    auto t = Tokenizer::from_gguf(c.vocab);
    ASSERT_FALSE(t) << c.named;
    EXPECT_EQ(t.error().code(), c.code) << t.error().message();
    EXPECT_NE(t.error().message().find(c.named), std::string::npos) << t.error().message();
  }
}

// ---- Hostile files

std::string file(const std::string& model, const std::string& rest = "") { return R"({"model": )" + model + rest + "}"; }
const char kTiny[] = R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})";

TEST(Tokenizer, RefusesHostileFiles) {
  std::string deep(100000, '[');
  struct {
    std::string text;
    Code code;
    const char* named;
  } cases[] = {
      {"", Code::kJsonInvalid, "tokenizer.json"},
      {"{", Code::kJsonInvalid, "byte"},
      {"\xFF", Code::kJsonInvalid, "byte"},
      {"[]", Code::kTokenizerInvalid, "no model"},
      {"{}", Code::kTokenizerInvalid, "no model"},
      {deep, Code::kTokenizerInvalid, "deep"},
      {R"({"model": {"vocab": )" + deep, Code::kTokenizerInvalid, ""},
      {file(R"({"type": "BPE"})"), Code::kTokenizerInvalid, "no vocabulary"},
      {file(R"({"type": "BPE", "vocab": {}, "merges": []})"), Code::kTokenizerInvalid, "empty"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}})"), Code::kTokenizerInvalid, "no merges"},
      {file(R"({"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []})"), Code::kTokenizerInvalid, "clash"},
      {file(R"({"type": "BPE", "vocab": {"a": 4000000000}, "merges": []})"), Code::kTokenizerInvalid, "out of range"},
      {file(R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})"), Code::kTokenizerInvalid, "out of range"},
      {file(R"({"type": "BPE", "vocab": {"a": 16000000}, "merges": []})"), Code::kTokenizerInvalid, "apart"},
      {file(R"({"type": "BPE", "vocab": {"a": "b"}, "merges": []})"), Code::kTokenizerInvalid, "text"},
      {file(R"({"type": "BPE", "vocab": [["a", 0]], "merges": []})"), Code::kTokenizerInvalid, "shape"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})"), Code::kTokenizerInvalid, "do not exist"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["ab"]})"), Code::kTokenizerInvalid, "two tokens"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]})"), Code::kTokenizerInvalid, "two tokens"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]})"), Code::kTokenizerInvalid, "two tokens"},
      {file(R"({"type": "BPE", "vocab": {"a": 0}, "merges": [1]})"), Code::kTokenizerInvalid, "a number"},
      {file(R"({"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []})"), Code::kTokenizerUnsupported, "dropout"},
      {file(R"({"type": "Unigram", "vocab": [["a"]]})"), Code::kTokenizerInvalid, "score"},
      {file(R"({"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1})"), Code::kTokenizerInvalid, "unk_id"},
      {file(R"({"type": "Unigram", "vocab": {"a": 0}})"), Code::kTokenizerInvalid, "shape"},
      {file(R"({"type": "Magic", "vocab": {"a": 0}})"), Code::kTokenizerUnsupported, "Magic"},
      {file(kTiny, R"(, "normalizer": {"type": "Magic"})"), Code::kTokenizerUnsupported, "Magic"},
      {file(kTiny, R"(, "normalizer": 1)"), Code::kTokenizerInvalid, "object"},
      {file(kTiny, R"(, "normalizer": {"type": "Sequence"})"), Code::kTokenizerInvalid, "normalizers"},
      {file(kTiny, R"(, "normalizer": {"type": "Replace"})"), Code::kTokenizerInvalid, "pattern"},
      {file(kTiny, R"(, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "////"})"), Code::kTokenizerInvalid, "charsmap"},
      {file(kTiny, R"(, "pre_tokenizer": {"type": "Magic"})"), Code::kTokenizerUnsupported, "Magic"},
      {file(kTiny, R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"})"), Code::kTokenizerInvalid,
       "missing a )"},
      {file(kTiny, R"(, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a)\\1"}, "behavior": "Isolated"})"),
       Code::kTokenizerUnsupported, "\\1"},
      {file(kTiny, R"(, "pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"})"),
       Code::kTokenizerUnsupported, "Sideways"},
      {file(kTiny, R"(, "pre_tokenizer": {"type": "Metaspace", "replacement": ""})"), Code::kTokenizerInvalid, "one character"},
      {file(kTiny, R"(, "post_processor": {"type": "Magic"})"), Code::kTokenizerUnsupported, "Magic"},
      {file(kTiny, R"(, "post_processor": {"type": "BertProcessing"})"), Code::kTokenizerInvalid, "cls"},
      {file(kTiny, R"(, "post_processor": {"type": "BertProcessing", "cls": ["x", 9], "sep": ["y", 1]})"), Code::kTokenizerInvalid,
       "does not exist"},
      {file(kTiny, R"(, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]})"),
       Code::kTokenizerInvalid, "does not define"},
      {file(kTiny, R"(, "decoder": {"type": "Magic"})"), Code::kTokenizerUnsupported, "Magic"},
      {file(kTiny, R"(, "added_tokens": {})"), Code::kTokenizerInvalid, "list"},
      {file(kTiny, R"(, "added_tokens": [{"id": 3}])"), Code::kTokenizerInvalid, "content"},
  };
  for (auto& c : cases) {
    auto t = Tokenizer::from_json(c.text);
    ASSERT_FALSE(t) << c.text.substr(0, 200);
    EXPECT_EQ(t.error().code(), c.code) << c.text.substr(0, 200) << t.error().message();
    EXPECT_NE(t.error().message().find(c.named), std::string::npos) << c.named << " in " << t.error().message();
  }
}

TEST(Tokenizer, RefusesHostileInput) {
  auto t = Tokenizer::from_json(file(kTiny));
  ASSERT_TRUE(t);
  EXPECT_EQ(t->encode("a\xFF", false).error().code(), Code::kUtf8Invalid);
  EXPECT_EQ(t->encode("\xED\xA0\x80", false).error().code(), Code::kUtf8Invalid);  // a surrogate
  EXPECT_EQ(t->decode(std::vector<int32_t>{3}, false).error().code(), Code::kTokenOutside);
  EXPECT_EQ(t->decode(std::vector<int32_t>{-1}, false).error().code(), Code::kTokenOutside);
  TokenStream stream(*t);
  EXPECT_EQ(stream.push(3).error().code(), Code::kTokenOutside);
  EXPECT_EQ(*stream.push(2), "ab");  // still usable
  EXPECT_EQ(*t->encode("abab", false), (std::vector<int32_t>{2, 2}));
  auto no_unknown = Tokenizer::from_json(file(R"({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]"})"));
  EXPECT_EQ(no_unknown->encode("b", false).error().code(), Code::kTokenizerInvalid);
}

// Long words, long runs of spaces, and patterns that would backtrack for ever, all within seconds.
TEST(Tokenizer, HostileTextsEnd) {
  std::string texts[] = {std::string(300000, 'a'), std::string(300000, ' ') + "x", std::string(100000, '\n') + " x"};
  for (const char* kind : {"gpt2", "llama2", "llama3", "t5", "bert", "clip"}) {
    auto t = Tokenizer::from_json(golden(kind, "tokenizer.json"));
    for (const std::string& text : texts) EXPECT_TRUE(t->encode(text, true));
  }
  for (const char* pattern : {"(a+)+b", "(a|a)*b", "\\\\s+$", "(?=.*b)a", "(a?){500}a{500}", "(.*)(.*)(.*)(.*)b"}) {
    auto t = Tokenizer::from_json(file(
        kTiny, R"(, "pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": ")" + std::string(pattern) + "\"}}"));
    ASSERT_TRUE(t) << pattern << t.error().message();
    (void)t->encode(std::string(20000, 'a') + std::string(20000, ' ') + "c", false);  // ids, or an error
  }
}

// ---- Single rules

TEST(Tokenizer, AStrikeThroughIsNoBeginning) {  // Gemma has "<s>" as HTML beside its "<bos>"
  Json file = *json_parse(golden("llama2", "tokenizer.json"), "tokenizer");
  const size_t id = file["model"]["vocab"].size();
  file["model"]["vocab"]["<bos>"] = id;
  file["added_tokens"].push_back({{"id", id}, {"content", "<bos>"}, {"special", true}});
  auto tokenizer = Tokenizer::from_json(json_text(file));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  ASSERT_TRUE(tokenizer->bos());
  EXPECT_EQ(tokenizer->token(*tokenizer->bos()), "<bos>");
}

TEST(Tokenizer, AddedTokens) {
  auto t = Tokenizer::from_json(file(
      R"({"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2, "[x]": 3}, "merges": []})",
      R"(, "added_tokens": [{"content": "[x]", "special": true}, {"content": "[l]", "lstrip": true}, {"content": "[r]", "rstrip": true},
          {"content": "w", "single_word": true}, {"content": "ab", "normalized": false}, {"content": "abab", "normalized": false}])"));
  ASSERT_TRUE(t) << t.error().message();
  struct {
    const char* text;
    std::vector<int32_t> ids;
  } cases[] = {
      {"a[x]b", {0, 3, 1}}, {"a  [l] b", {0, 4, 2, 1}}, {"a [r]  b", {0, 2, 5, 1}}, {"a w", {0, 2, 6}}, {"aw", {0}}, {"ababab", {8, 7}},
  };
  for (auto& c : cases) EXPECT_EQ(*t->encode(c.text, false), c.ids) << c.text;
  EXPECT_TRUE(t->is_special(3));
  EXPECT_FALSE(t->is_special(4));
  EXPECT_EQ(t->vocab_size(), 9u);
  EXPECT_EQ(t->id_of("[l]"), 4);
  EXPECT_EQ(t->token(8), "abab");
}

TEST(TokenStream, NeverCutsACharacter) {
  auto t = Tokenizer::from_json(golden("gpt2", "tokenizer.json"));
  auto ids = *t->encode("👩‍👩‍👧‍👦 né", false);
  EXPECT_EQ(streamed(*t, ids), "👩‍👩‍👧‍👦 né");
  // Half a character at the end is the same U+FFFD that decode() gives.
  for (size_t n = 0; n <= ids.size(); ++n) {
    std::vector<int32_t> part(ids.begin(), ids.begin() + ptrdiff_t(n));
    EXPECT_EQ(streamed(*t, part), *t->decode(part, true));
  }
}

}  // namespace
}  // namespace sb
