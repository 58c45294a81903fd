#include "input/unicode.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "unicode_tables.h"  // generated

namespace sb {
namespace {

using namespace unicode;

constexpr uint16_t kSpaceBit = 1 << 5, kCompatibleBit = 1 << 6, kCombiningBit = 1 << 7, kLowerBit = 1 << 8, kWordBit = 1 << 11,
                   kComposesBit = 1 << 12, kCanonicalBit = 1 << 13;
constexpr char32_t kHangulBase = 0xAC00, kHangulCount = 11172, kLeadBase = 0x1100, kVowelBase = 0x1161, kTailBase = 0x11A7, kVowels = 21,
                   kTails = 28;

uint16_t properties(char32_t c) {
  if (c > 0x10FFFF) return kProperties[0];
  return kProperties[kStage2[size_t(kStage1[c >> 7]) << 7 | (c & 127)]];
}

/// The well-formed character at `at`: its length; or minus the length of the ill-formed part there (0: cut off by the end).
int utf8_check(std::string_view text, size_t at) {
  auto byte = [&](size_t i) { return uint8_t(text[at + i]); };
  uint8_t b = byte(0);
  if (b < 0x80) return 1;
  if (b < 0xC2 || b > 0xF4) return -1;
  size_t length = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
  uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80, high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size()) return 0;
    if (byte(i) < low || byte(i) > high) return -int(i);
    low = 0x80, high = 0xBF;
  }
  return int(length);
}

}  // namespace

size_t utf8_invalid_at(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    int n = utf8_check(text, at);
    if (n <= 0) return at;
    at += size_t(n);
  }
  return std::string_view::npos;
}

void utf8_append(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += char(0xC0 | c >> 6);
    out += char(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += char(0xE0 | c >> 12);
    out += char(0x80 | (c >> 6 & 63));
    out += char(0x80 | (c & 63));
  } else {
    out += char(0xF0 | c >> 18);
    out += char(0x80 | (c >> 12 & 63));
    out += char(0x80 | (c >> 6 & 63));
    out += char(0x80 | (c & 63));
  }
}

size_t utf8_decided(std::string_view text) {
  // Only the last three bytes can begin a character that is still open.
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    size_t at = text.size() - back;
    if (utf8_continues(text[at])) continue;
    return utf8_check(text, at) == 0 ? at : text.size();
  }
  return text.size();
}

void utf8_append_lossy(std::string& out, std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    int n = utf8_check(text, at);
    if (n > 0) {
      out.append(text.substr(at, size_t(n)));
      at += size_t(n);
    } else {
      out += "\xEF\xBF\xBD";
      at = n == 0 ? text.size() : at + size_t(-n);
    }
  }
}

uint32_t category_bit(char32_t c) { return 1u << (properties(c) & 31); }

uint32_t category_mask(std::string_view name) {
  static constexpr std::string_view kNames = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co ";
  uint32_t mask = 0;
  if (name.empty() || name.size() > 2) return 0;
  for (size_t i = 0; i * 3 < kNames.size(); ++i) {
    if (kNames[i * 3] == name[0] && (name.size() == 1 || kNames[i * 3 + 1] == name[1])) mask |= 1u << i;
  }
  return mask;
}

bool is_space(char32_t c) { return properties(c) & kSpaceBit; }
bool is_word(char32_t c) { return properties(c) & kWordBit; }
Script script_of(char32_t c) { return Script(properties(c) >> 14); }
bool is_ascii_punctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

char32_t lower_simple(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (!(properties(c) & kLowerBit)) return c;
  auto run = std::upper_bound(std::begin(kLowerRuns), std::end(kLowerRuns), c, [](char32_t v, const LowerRun& r) { return v < r.start; });
  if (run == std::begin(kLowerRuns)) return c;
  --run;
  return c <= run->end && (c - run->start) % run->step == 0 ? char32_t(int64_t(c) + run->difference) : c;
}

void lower_append(std::string& out, char32_t c) {
  for (size_t i = 0; c >= 0x80 && i + 3 < std::size(kLowerSpecial); i += 4) {
    if (kLowerSpecial[i] != c) continue;
    for (size_t k = 1; k <= 3 && kLowerSpecial[i + k]; ++k) utf8_append(out, kLowerSpecial[i + k]);
    return;
  }
  utf8_append(out, lower_simple(c));
}

// ---- Grapheme clusters (UAX 29, extended). Extend and SpacingMark are one class here: nothing before either breaks.

namespace {

enum class Hangul { kNone, kL, kV, kT, kLv, kLvt };
Hangul hangul_of(char32_t c) {
  if ((c >= 0x1100 && c <= 0x115F) || (c >= 0xA960 && c <= 0xA97C)) return Hangul::kL;
  if ((c >= 0x1160 && c <= 0x11A7) || (c >= 0xD7B0 && c <= 0xD7C6)) return Hangul::kV;
  if ((c >= 0x11A8 && c <= 0x11FF) || (c >= 0xD7CB && c <= 0xD7FB)) return Hangul::kT;
  if (c >= kHangulBase && c < kHangulBase + kHangulCount) return (c - kHangulBase) % kTails ? Hangul::kLvt : Hangul::kLv;
  return Hangul::kNone;
}

// Extended_Pictographic, coarsely: the symbols that emoji sequences join with U+200D.
bool is_pictographic(char32_t c) {
  return c == 0xA9 || c == 0xAE || (c >= 0x203C && c <= 0x3299 && (category_bit(c) & (kCategoryS | kCategoryP))) ||
         (c >= 0x1F000 && c <= 0x1FAFF && !(c >= 0x1F1E6 && c <= 0x1F1FF) && !(c >= 0x1F3FB && c <= 0x1F3FF));
}

}  // namespace

size_t grapheme_end(std::string_view text, size_t at) {
  char32_t c = utf8_next(text, at);
  bool pictographic = is_pictographic(c), joined = false;
  int flags = c >= 0x1F1E6 && c <= 0x1F1FF;
  while (at < text.size()) {
    size_t next = at;
    char32_t d = utf8_next(text, next);
    if (c == '\r' && d == '\n') return next;
    if (c < 0x80 && d < 0x80) return at;
    int left = properties(c) >> 9 & 3, right = properties(d) >> 9 & 3;
    if (left == 1 || right == 1) return at;  // a control stands alone
    Hangul l = hangul_of(c), r = hangul_of(d);
    bool together = right == 2 || left == 3 || (l == Hangul::kL && r != Hangul::kNone && r != Hangul::kT) ||
                    ((l == Hangul::kLv || l == Hangul::kV) && (r == Hangul::kV || r == Hangul::kT)) ||
                    ((l == Hangul::kLvt || l == Hangul::kT) && r == Hangul::kT) || (joined && is_pictographic(d));
    if (!together && d >= 0x1F1E6 && d <= 0x1F1FF && flags == 1 && c >= 0x1F1E6 && c <= 0x1F1FF) together = true, flags = 2;
    if (!together) return at;
    joined = pictographic && d == 0x200D;
    if (right != 2) pictographic = is_pictographic(d);
    if (left == 3 && d >= 0x1F1E6 && d <= 0x1F1FF) flags = 1;
    c = d;
    at = next;
  }
  return at;
}

// ---- Normal forms (UAX 15).

namespace {

uint8_t combining_class(char32_t c) {
  if (!(properties(c) & kCombiningBit)) return 0;
  size_t i = size_t(std::upper_bound(std::begin(kCombiningStart), std::end(kCombiningStart), c) - std::begin(kCombiningStart));
  if (i == 0 || c - kCombiningStart[i - 1] >= kCombiningCount[i - 1]) return 0;
  return kCombiningClass[i - 1];
}

void append_pool(std::u32string& out, const uint16_t* unit, const uint16_t* end) {
  while (unit < end) {
    char32_t c = *unit++;
    if (c >= 0xD800 && c < 0xDC00) c = 0x10000 + ((c - 0xD800) << 10) + (*unit++ - 0xDC00);
    out += c;
  }
}

template <size_t N, size_t M>
bool append_decomposed(std::u32string& out, char32_t c, const uint32_t (&keys)[N], const uint16_t (&offsets)[M], const uint16_t* pool) {
  const uint32_t* key = std::lower_bound(keys, keys + N, uint32_t(c));
  if (key == keys + N || *key != c) return false;
  append_pool(out, pool + offsets[key - keys], pool + offsets[key - keys + 1]);
  return true;
}

void append_decomposition(std::u32string& out, char32_t c, bool compatible) {
  uint16_t p = properties(c);
  if (!(p & (kCanonicalBit | kCompatibleBit))) {
    out += c;
    return;
  }
  if (c >= kHangulBase && c < kHangulBase + kHangulCount) {
    char32_t s = c - kHangulBase;
    out += kLeadBase + s / (kVowels * kTails);
    out += kVowelBase + s % (kVowels * kTails) / kTails;
    if (s % kTails) out += kTailBase + s % kTails;
    return;
  }
  if (compatible && (p & kCompatibleBit) && append_decomposed(out, c, kCompatibleKeys, kCompatibleOffsets, kCompatiblePool)) return;
  if ((p & kCanonicalBit) && append_decomposed(out, c, kCanonicalKeys, kCanonicalOffsets, kCanonicalPool)) return;
  out += c;
}

char32_t compose_pair(char32_t a, char32_t b) {
  if (a >= kLeadBase && a < kLeadBase + 19 && b >= kVowelBase && b < kVowelBase + kVowels)
    return kHangulBase + ((a - kLeadBase) * kVowels + (b - kVowelBase)) * kTails;
  if (a >= kHangulBase && a < kHangulBase + kHangulCount && (a - kHangulBase) % kTails == 0 && b > kTailBase && b < kTailBase + kTails)
    return a + (b - kTailBase);
  if (!(properties(b) & kComposesBit)) return 0;
  auto [low, high] = std::equal_range(std::begin(kComposeFirst), std::end(kComposeFirst), uint32_t(a));
  const uint32_t* second = kComposeSecond + (low - kComposeFirst);
  const uint32_t* end = kComposeSecond + (high - kComposeFirst);
  const uint32_t* hit = std::lower_bound(second, end, uint32_t(b));
  return hit != end && *hit == b ? kComposed[hit - kComposeSecond] : 0;
}

void order_marks(std::u32string& chars) {
  std::vector<std::pair<uint64_t, char32_t>> run;  // class and place, which keeps the sort stable
  for (size_t i = 0; i < chars.size();) {
    if (chars[i] < 0x300 || !combining_class(chars[i])) {
      ++i;
      continue;
    }
    size_t start = i;
    run.clear();
    for (uint8_t k; i < chars.size() && (k = combining_class(chars[i])); ++i) run.emplace_back(uint64_t(k) << 56 | i, chars[i]);
    std::sort(run.begin(), run.end());
    for (auto& [k, c] : run) chars[start++] = c;
  }
}

void compose(std::u32string& chars) {
  size_t out = 0, starter = std::u32string::npos;
  uint8_t last = 0;  // the class of what was last kept behind the starter
  for (size_t i = 0; i < chars.size(); ++i) {
    char32_t c = chars[i];
    uint8_t k = combining_class(c);
    if (starter != std::u32string::npos && (out == starter + 1 || (last < k && last != 0))) {
      if (char32_t whole = compose_pair(chars[starter], c)) {
        chars[starter] = whole;
        continue;
      }
    }
    if (k == 0) starter = out;
    last = k;
    chars[out++] = c;
  }
  chars.resize(out);
}

// True when nothing in the text can change under the form, so that most text is only copied.
bool is_stable(std::string_view text, bool composed, bool compatible) {
  uint16_t changing = kCombiningBit | (composed ? kComposesBit : kCanonicalBit) | (compatible ? kCompatibleBit : 0);
  for (size_t at = 0; at < text.size();) {
    if (uint8_t(text[at]) < 0x80) {
      ++at;
    } else if (properties(utf8_next(text, at)) & changing) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  bool composed = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  if (is_stable(text, composed, compatible)) return std::string(text);
  std::u32string chars;
  chars.reserve(text.size());
  for (size_t at = 0; at < text.size();) append_decomposition(chars, utf8_next(text, at), compatible);
  order_marks(chars);
  if (composed) compose(chars);
  std::string out;
  out.reserve(text.size());
  for (char32_t c : chars) utf8_append(out, c);
  return out;
}

}  // namespace sb
