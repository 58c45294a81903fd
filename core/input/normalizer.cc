#include "input/normalizer.h"

#include "input/model.h"  // byte_letter

namespace sb {

namespace {

bool is_chinese(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

template <class F>
void each(std::string_view text, F f) {
  for (size_t at = 0; at < text.size();) f(utf8_next(text, at));
}

std::string bert(const NormalizerStep& s, std::string_view text) {
  std::string out, next;
  out.reserve(text.size() + 16);
  each(text, [&](char32_t c) {
    if (s.cleans) {
      bool blank = c == '\t' || c == '\n' || c == '\r';
      if (c == 0 || c == 0xFFFD || (!blank && (category_bit(c) & (kCategoryC & ~kCategoryCn)))) return;
      if (blank || is_space(c)) c = ' ';
    }
    if (s.chinese && is_chinese(c)) {
      out += ' ';
      utf8_append(out, c);
      out += ' ';
    } else {
      utf8_append(out, c);
    }
  });
  if (s.accents) {
    next = normalize(out, NormalForm::kNfd);
    out.clear();
    each(next, [&](char32_t c) {
      if (c < 128 || !(category_bit(c) & kCategoryMn)) utf8_append(out, c);
    });
  }
  if (s.lowercase) {
    next.swap(out);
    out.clear();
    each(next, [&](char32_t c) { lower_append(out, c); });
  }
  return out;
}

std::string nmt(std::string_view text) {
  std::string out;
  each(text, [&](char32_t c) {
    if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
    bool blank = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                 c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    utf8_append(out, blank ? U' ' : c);
  });
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t start = 0, end = text.size();
  while (left && start < end) {
    size_t next = start;
    if (!is_space(utf8_next(text, next))) break;
    start = next;
  }
  while (right && end > start && is_space(utf8_before(text, end))) {
    do --end;
    while (utf8_continues(text[end]));
  }
  return std::string(text.substr(start, end - start));
}

}  // namespace

Pattern Pattern::literal(std::string text) {
  Pattern p;
  p.text_ = std::move(text);
  return p;
}

Result<Pattern> Pattern::regex(std::string_view source) {
  SB_TRY(Regex regex, Regex::compile(source));
  Pattern p;
  p.regex_ = std::make_shared<const Regex>(std::move(regex));
  return p;
}

bool Pattern::find_all(std::string_view text, std::vector<RegexSearch::Match>& matches) const {
  matches.clear();
  if (!regex_) {
    if (text_.empty()) return true;
    for (size_t at = 0; (at = text.find(text_, at)) != std::string_view::npos; at += text_.size())
      matches.push_back({at, at + text_.size()});
    return true;
  }
  if (text.empty()) return true;
  RegexSearch search(*regex_, text);
  while (auto match = search.next()) matches.push_back(*match);
  return !search.exhausted();
}

Result<CharacterMap> CharacterMap::read(std::string_view bytes) {
  auto wrong = [] { return err(Code::kTokenizerInvalid, {{"why", "precompiled_charsmap is damaged"}}); };
  auto word = [&](size_t at) {
    uint32_t v = 0;
    for (size_t i = 4; i-- > 0;) v = v << 8 | uint8_t(bytes[at + i]);
    return v;
  };
  if (bytes.size() < 4) return wrong();
  uint32_t size = word(0);
  if (size % 4 || size > bytes.size() - 4) return wrong();
  CharacterMap map;
  for (size_t at = 4; at < 4 + size_t(size); at += 4) map.units_.push_back(word(at));
  map.replacements_ = bytes.substr(4 + size_t(size));
  if (utf8_invalid_at(map.replacements_) != std::string_view::npos) return wrong();
  return map;
}

// The replacement of the shortest entry that is a prefix of `part`: so SentencePiece's port in tokenizers has it.
bool CharacterMap::find(std::string_view part, std::string_view& replacement) const {
  auto offset = [](uint32_t unit) { return size_t(unit >> 10) << ((unit & (1u << 9)) >> 6); };
  if (units_.empty()) return false;
  size_t node = offset(units_[0]);
  for (char b : part) {
    if (b == 0) return false;
    node ^= uint8_t(b);
    if (node >= units_.size()) return false;
    uint32_t unit = units_[node];
    if ((unit & ((1u << 31) | 0xFF)) != uint8_t(b)) return false;
    node ^= offset(unit);
    if (unit >> 8 & 1) {
      if (node >= units_.size()) return false;
      size_t start = units_[node] & 0x7FFFFFFF;
      if (start >= replacements_.size()) {
        replacement = {};
        return true;
      }
      replacement = std::string_view(replacements_).substr(start);
      replacement = replacement.substr(0, replacement.find('\0'));
      return true;
    }
  }
  return false;
}

void CharacterMap::apply(std::string_view text, std::string& out) const {
  out.clear();
  std::string_view replacement;
  for (size_t at = 0; at < text.size();) {
    size_t end = grapheme_end(text, at);
    if (end - at < 6 && find(text.substr(at, end - at), replacement)) {
      out += replacement;
      at = end;
      continue;
    }
    for (size_t next; at < end; at = next) {
      next = at + utf8_length(text[at]);
      std::string_view part = text.substr(at, next - at);
      out += find(part, replacement) ? replacement : part;
    }
  }
}

Status apply_normalizer(const std::vector<NormalizerStep>& steps, std::string_view text, std::string& out) {
  out.assign(text);
  std::string next;
  std::vector<RegexSearch::Match> matches;
  for (const NormalizerStep& s : steps) {
    next.clear();
    switch (s.kind) {
      case NormalizerStep::kForm:
        next = normalize(out, s.form);
        break;
      case NormalizerStep::kLowercase:
        each(out, [&](char32_t c) { lower_append(next, c); });
        break;
      case NormalizerStep::kStrip:
        next = strip(out, s.left, s.right);
        break;
      case NormalizerStep::kStripAccents:
        each(out, [&](char32_t c) {
          if (c < 128 || !(category_bit(c) & kCategoryM)) utf8_append(next, c);
        });
        break;
      case NormalizerStep::kReplace: {
        if (!s.pattern.find_all(out, matches))
          return err(Code::kTokenizerInvalid, {{"why", "a normalizer's pattern takes too many steps on this text"}});
        if (matches.empty()) continue;
        size_t from = 0;
        for (auto [start, end] : matches) {
          next.append(out, from, start - from);
          next += s.text;
          from = end;
        }
        next.append(out, from, std::string::npos);
        break;
      }
      case NormalizerStep::kPrepend:
        if (out.empty()) continue;
        next = s.text + out;
        break;
      case NormalizerStep::kBert:
        next = bert(s, out);
        break;
      case NormalizerStep::kNmt:
        next = nmt(out);
        break;
      case NormalizerStep::kCharacterMap:
        s.map->apply(out, next);
        break;
      case NormalizerStep::kByteLevel:
        for (char b : out) next += byte_letter(uint8_t(b));
        break;
    }
    out.swap(next);
  }
  return {};
}

}  // namespace sb
