// Characters: UTF-8 in and out, categories, case, and the four normal forms. The tables are generated (tools/unicode_tables.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sb {

/// The byte where `text` stops being UTF-8 (overlong forms and surrogates count as wrong), or npos when all of it is.
size_t utf8_invalid_at(std::string_view text);
/// Reads the character at `text[at]` and moves `at` behind it. `text` must be valid UTF-8 and `at` on a boundary.
inline char32_t utf8_next(std::string_view text, size_t& at) {
  auto byte = [&](size_t i) { return char32_t(uint8_t(text[at + i])); };
  char32_t c = byte(0);
  if (c < 0x80) return at += 1, c;
  if (c < 0xE0) return c = (c & 31) << 6 | (byte(1) & 63), at += 2, c;
  if (c < 0xF0) return c = (c & 15) << 12 | (byte(1) & 63) << 6 | (byte(2) & 63), at += 3, c;
  return c = (c & 7) << 18 | (byte(1) & 63) << 12 | (byte(2) & 63) << 6 | (byte(3) & 63), at += 4, c;
}
inline size_t utf8_length(char first) {
  uint8_t b = uint8_t(first);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}
inline bool utf8_continues(char byte) { return (uint8_t(byte) & 0xC0) == 0x80; }
/// The character that ends just before `at` (> 0).
inline char32_t utf8_before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && utf8_continues(text[at]));
  return utf8_next(text, at);
}
void utf8_append(std::string& out, char32_t c);
/// How many bytes of `text`, from its start, hold whole characters or can never become one; the rest (at most 3) may yet be completed.
size_t utf8_decided(std::string_view text);
/// Appends `text` with every ill-formed part as one U+FFFD, as browsers and Rust do it (maximal subparts).
void utf8_append_lossy(std::string& out, std::string_view text);

/// General categories as bits, so that \p{L} is one mask. The order is that of tools/unicode_tables.py.
uint32_t category_bit(char32_t c);
inline constexpr uint32_t kCategoryCn = 1u << 0, kCategoryL = 0x1Fu << 1, kCategoryM = 7u << 6, kCategoryN = 7u << 9,
                          kCategoryP = 0x7Fu << 12, kCategoryS = 0xFu << 19, kCategoryZ = 7u << 23, kCategoryC = 0xFu << 26 | 1u,
                          kCategoryLu = 1u << 1, kCategoryLl = 1u << 2, kCategoryMn = 1u << 6, kCategoryNd = 1u << 9,
                          kCategoryCc = 1u << 26, kCategoryCf = 1u << 27, kCategoryCs = 1u << 28, kCategoryCo = 1u << 29;
/// The mask of a category's short name ("L", "Lu", "Nd" …); 0 when there is none.
uint32_t category_mask(std::string_view name);

bool is_space(char32_t c);  // White_Space
bool is_word(char32_t c);   // \w: alphabetic, mark, decimal number or connector punctuation
inline bool is_number(char32_t c) { return category_bit(c) & kCategoryN; }
bool is_ascii_punctuation(char32_t c);
enum class Script { kNone, kHan, kHiragana, kKatakana };
Script script_of(char32_t c);
/// The simple lower case; İ, whose lower case is two characters, stays.
char32_t lower_simple(char32_t c);
/// Appends the full lower case of one character, without context.
void lower_append(std::string& out, char32_t c);
/// The end of the extended grapheme cluster that starts at `at`.
size_t grapheme_end(std::string_view text, size_t at);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view text, NormalForm form);

}  // namespace sb
