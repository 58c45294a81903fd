#include "input/regex.h"

#include <gtest/gtest.h>

#include "input/unicode.h"

namespace sb {
namespace {

std::string matches(std::string_view pattern, std::string_view text) {
  auto regex = Regex::compile(pattern);
  if (!regex) return regex.error().message();
  RegexSearch search(*regex, text);
  std::string out;
  while (auto m = search.next()) out += "[" + std::string(text.substr(m->start, m->end - m->start)) + "]";
  return search.exhausted() ? "exhausted" : out;
}

TEST(Regex, FindsWhatOnigurumaFinds) {
  struct {
    const char *pattern, *text, *found;
  } cases[] = {
      {"a|ab", "ab", "[a]"},
      {"(?:a|ab)c", "abc", "[abc]"},
      {"a*", "baac", "[][aa][]"},
      {"a*?b", "aab", "[aab]"},
      {"a+?", "aaa", "[a][a][a]"},
      {"a{2}", "aaaaa", "[aa][aa]"},
      {"a{2,}", "aaaaa", "[aaaaa]"},
      {"a{1,2}+", "aaaaa", "[aaaaa]"},  // a repeat of a repeat
      {"a{,2}b", "aaab", "[aab]"},
      {"a{x", "a{x", "[a{x]"},
      {"a++a", "aaa", ""},
      {"(?>a+)a", "aaa", ""},
      {"(?>a|ab)c", "abc", ""},
      {"\\s+(?!\\S)|\\s+", "a   b  ", "[  ][ ][  ]"},
      {"(?<=a)b", "ab cb", "[b]"},
      {"(?<!a)b", "ab cb", "[b]"},
      {"(?<=a|xy)b", "ab xyb cb", "[b][b]"},
      {"(?i:'S)", "'s 'S 'ſ 't", "['s]['S]['ſ]"},
      {"(?i)k", "kKK", "[k][K][K]"},
      {"a(?i)b|c", "aB aC c", "[aB][aC]"},  // Ruby: a(?i:b|c)
      {"[a-c&&[^b]]+", "abc", "[a][c]"},
      {"[^a[bc]]+", "abcd", "[d]"},
      {"[]a]+", "]a", "[]a]"},
      {"[a\\-z]+", "a-mz", "[a-][z]"},
      {"[[:digit:]x]+", "12x3", "[12x3]"},
      {"\\p{Lu}\\p{^L}\\P{N}", "A1b", "[A1b]"},
      {"\\p{Han}+", "中文a々", "[中文][々]"},
      {"^a$", "a\na", "[a][a]"},
      {"\\Aa|a\\z", "aaa", "[a][a]"},
      {"\\bfoo\\b", "foo foobar foo", "[foo][foo]"},
      {".+", "a\nb", "[a][b]"},
      {"\\x41\\x{1F600}\\u00e9", "A😀é", "[A😀é]"},
      {"(a*)*b", "aab", "[aab]"},
      {"(|a)+b", "aab", "[aab]"},
      {"(?<name>a)(?#note)b", "ab", "[ab]"},
      {"\\h+", "beefx", "[beef]"},
      {"\\w+|[^\\w\\s]+", "añ_1 ?!", "[añ_1][?!]"},
  };
  for (auto& c : cases) EXPECT_EQ(matches(c.pattern, c.text), c.found) << c.pattern;
}

TEST(Regex, RefusesByName) {
  struct {
    const char* pattern;
    Code code;
  } cases[] = {{"(", Code::kTokenizerInvalid},
               {")", Code::kTokenizerInvalid},
               {"[a", Code::kTokenizerInvalid},
               {"*", Code::kTokenizerInvalid},
               {"\\", Code::kTokenizerInvalid},
               {"[b-a]", Code::kTokenizerInvalid},
               {"a{2,1}", Code::kTokenizerInvalid},
               {"\\x{110000}", Code::kTokenizerInvalid},
               {"\\p{L", Code::kTokenizerInvalid},
               {"\\1", Code::kTokenizerUnsupported},
               {"\\X", Code::kTokenizerUnsupported},
               {"\\p{Klingon}", Code::kTokenizerUnsupported},
               {"(?<=a+)b", Code::kTokenizerUnsupported},
               {"a{1001}", Code::kTokenizerUnsupported},
               {"((a{1000}){1000}){1000}", Code::kTokenizerInvalid},
               {"(?x)a", Code::kTokenizerUnsupported}};
  for (auto& c : cases) {
    auto regex = Regex::compile(c.pattern);
    ASSERT_FALSE(regex) << c.pattern;
    EXPECT_EQ(regex.error().code(), c.code) << c.pattern;
  }
  EXPECT_FALSE(Regex::compile(std::string(10000, '(')));
  EXPECT_FALSE(Regex::compile(std::string(10000, '[')));
}

TEST(Unicode, Tables) {
  EXPECT_TRUE(is_space(0x3000) && is_space(0x85) && is_space('\t') && !is_space(0x200B) && !is_space(0x1C));
  EXPECT_TRUE(is_word('_') && is_word(0xE9) && is_word(0x301) && is_word(0x24B6) && !is_word(0xBD) && !is_word('-'));
  EXPECT_EQ(category_mask("L"), kCategoryL);
  EXPECT_EQ(category_mask("Nd"), kCategoryNd);
  EXPECT_EQ(category_mask("X"), 0u);
  EXPECT_EQ(lower_simple(0xC4), 0xE4u);
  EXPECT_EQ(lower_simple(0x10400), 0x10428u);
  std::string lower;
  lower_append(lower, 0x130);
  EXPECT_EQ(lower, "i\xCC\x87");
}

TEST(Unicode, NormalForms) {
  struct {
    const char *text, *nfc, *nfd, *nfkc, *nfkd;
  } cases[] = {
      {"abc", "abc", "abc", "abc", "abc"},
      {"é", "é", "e\xCC\x81", "é", "e\xCC\x81"},
      {"e\xCC\x81", "é", "e\xCC\x81", "é", "e\xCC\x81"},
      {"ﬁ①", "ﬁ①", "ﬁ①", "fi1", "fi1"},
      {"한", "한", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "한", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"},
      {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "한", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "한", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"},
      {"q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87", "q\xCC\xA3\xCC\x87", "q\xCC\xA3\xCC\x87", "q\xCC\xA3\xCC\x87"},  // marks in order
      {"\xE2\x84\xAB", "Å", "A\xCC\x8A", "Å", "A\xCC\x8A"},                                                       // Ångström sign
      {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC",
       "\xE0\xA4\x95\xE0\xA4\xBC"},  // excluded
  };
  for (auto& c : cases) {
    EXPECT_EQ(normalize(c.text, NormalForm::kNfc), c.nfc) << c.text;
    EXPECT_EQ(normalize(c.text, NormalForm::kNfd), c.nfd) << c.text;
    EXPECT_EQ(normalize(c.text, NormalForm::kNfkc), c.nfkc) << c.text;
    EXPECT_EQ(normalize(c.text, NormalForm::kNfkd), c.nfkd) << c.text;
  }
}

TEST(Unicode, Utf8) {
  struct {
    const char* bytes;
    size_t invalid_at;
    const char* lossy;
  } cases[] = {
      {"aé😀", std::string_view::npos, "aé😀"},
      {"\xC0\x80", 0, "��"},
      {"a\xE2\x82", 1, "a�"},
      {"\xE2\x82z", 0, "�z"},
      {"\xED\xA0\x80", 0, "���"},
      {"\xF0\x9F\x98z", 0, "�z"},
      {"\xF5\x80", 0, "��"},
      {"\x80", 0, "�"},
  };
  for (auto& c : cases) {
    EXPECT_EQ(utf8_invalid_at(c.bytes), c.invalid_at);
    std::string lossy;
    utf8_append_lossy(lossy, c.bytes);
    EXPECT_EQ(lossy, c.lossy);
  }
  EXPECT_EQ(utf8_decided("a\xE2\x82"), 1u);
  EXPECT_EQ(utf8_decided("a\xE2\x82\xAC"), 4u);
  EXPECT_EQ(utf8_decided("a\xC0"), 2u);
}

TEST(Unicode, GraphemeClusters) {
  struct {
    const char* text;
    size_t first;  // bytes of the first cluster
  } cases[] = {{"ab", 1},
               {"e\xCC\x81x", 3},
               {"\r\nx", 2},
               {"👩‍👩‍👧x", 18},
               {"🇩🇪🇫🇷", 8},
               {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"
                "a",
                9},
               {"👍🏽a", 8}};
  for (auto& c : cases) EXPECT_EQ(grapheme_end(c.text, 0), c.first) << c.text;
}

}  // namespace
}  // namespace sb
