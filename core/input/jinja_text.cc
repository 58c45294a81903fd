// What Python's str methods do to UTF-8, and dates.
#include <algorithm>

#include "input/jinja.h"

namespace sb::jinja {

size_t character_size(std::string_view text, size_t at) {
  uint8_t c = uint8_t(text[at]);
  size_t n = c < 0xC2 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 1;
  if (at + n > text.size()) return 1;
  for (size_t k = 1; k < n; ++k) {
    if ((uint8_t(text[at + k]) & 0xC0) != 0x80) return 1;
  }
  return n;
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); i += character_size(text, i)) ++count;
  return count;
}

namespace {

// Case of the scripts that two UTF-8 bytes reach and whose pairs lie at a fixed distance: Latin, Greek, Cyrillic. Templates change the case
// of roles and keywords, hardly ever of what people wrote.
uint32_t change_case(uint32_t c, bool up) {
  if (up) {
    if ((c >= 'a' && c <= 'z') || (c >= 0xE0 && c <= 0xFE && c != 0xF7) || (c >= 0x3B1 && c <= 0x3C9 && c != 0x3C2) ||
        (c >= 0x430 && c <= 0x44F)) {
      return c - 32;
    }
    if (c >= 0x450 && c <= 0x45F) return c - 80;
    return c;
  }
  if ((c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3A9 && c != 0x3A2) ||
      (c >= 0x410 && c <= 0x42F)) {
    return c + 32;
  }
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  return c;
}

// One character in another case; reports whether it was a letter of ours.
bool append_in_case(std::string_view character, bool up, std::string& out) {
  if (character.size() > 2) {
    out += character;
    return true;  // no case that we know, but within a word
  }
  uint32_t c =
      character.size() == 1 ? uint8_t(character[0]) : (uint32_t(uint8_t(character[0]) & 0x1F) << 6 | (uint8_t(character[1]) & 0x3F));
  uint32_t changed = character.size() == 1 && c >= 0x80 ? c : change_case(c, up);
  if (character.size() == 1) {
    out += char(changed);
  } else {
    out += char(0xC0 | changed >> 6);
    out += char(0x80 | (changed & 0x3F));
  }
  return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string in_case(std::string_view text, bool up) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    size_t n = character_size(text, i);
    append_in_case(text.substr(i, n), up, out);
    i += n;
  }
  return out;
}

bool is_space(std::string_view c) {  // as Python's str.isspace
  if (c.size() == 1) return c[0] == ' ' || (c[0] >= '\t' && c[0] <= '\r') || (c[0] >= '\x1c' && c[0] <= '\x1f');
  for (std::string_view s : {"\u0085", "\u00a0", "\u1680", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    if (c == s) return true;
  }
  return c.size() == 3 && c >= "\u2000" && c <= "\u200a";
}

}  // namespace

std::string to_upper(std::string_view text) { return in_case(text, true); }
std::string to_lower(std::string_view text) { return in_case(text, false); }

std::string to_title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    size_t n = character_size(text, i);
    in_word = append_in_case(text.substr(i, n), !in_word, out);
    i += n;
  }
  return out;
}

std::string to_capitalized(std::string_view text) {
  if (text.empty()) return "";
  size_t n = character_size(text, 0);
  return to_upper(text.substr(0, n)) + to_lower(text.substr(n));
}

std::string_view strip(std::string_view text, bool left, bool right, const std::string* chars) {
  auto goes = [&](std::string_view c) { return chars ? chars->find(c) != std::string::npos : is_space(c); };
  while (left && !text.empty()) {
    size_t n = character_size(text, 0);
    if (!goes(text.substr(0, n))) break;
    text.remove_prefix(n);
  }
  while (right && !text.empty()) {
    size_t at = text.size() - 1;
    while (at > 0 && text.size() - at < 4 && (uint8_t(text[at]) & 0xC0) == 0x80) --at;
    if (at + character_size(text, at) != text.size()) at = text.size() - 1;
    if (!goes(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string replace_all(Interpreter& run, std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  std::string out;
  size_t at = 0;
  for (int64_t n = 0; (count < 0 || n < count) && run.spend(1 + to.size() / 16) && out.size() <= kMaxOutput; ++n) {
    if (from.empty()) {  // Python: before every character and at the end
      out += to;
      if (at >= text.size()) return out;
      size_t size = character_size(text, at);
      out += text.substr(at, size);
      at += size;
      continue;
    }
    size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  if (out.size() > kMaxOutput) run.fail("a text grows past " + std::to_string(kMaxOutput) + " bytes");
  out += text.substr(std::min(at, text.size()));
  return out;
}

std::string format_date(const std::array<int, 6>& date, std::string_view format) {
  static constexpr const char* kMonths[] = {"January", "February", "March",     "April",   "May",      "June",
                                            "July",    "August",   "September", "October", "November", "December"};
  static constexpr const char* kDays[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
  auto [year, month, day, hour, minute, second] = date;
  static constexpr int kBefore[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  int day_of_year = kBefore[month - 1] + day + (is_leap && month > 2);
  int past = year - 1;
  int week_day = (past + past / 4 - past / 100 + past / 400 + day_of_year) % 7;  // 1 January of year 1 was a Monday
  std::string out;
  auto digits = [&](int value, size_t width, char pad = '0') {
    std::string s = std::to_string(value);
    if (s.size() < width) out.append(width - s.size(), pad);
    out += s;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      out += format[i];
      continue;
    }
    char c = format[++i];
    bool is_bare = c == '-' && i + 1 < format.size();  // %-d: no padding
    if (is_bare) c = format[++i];
    size_t two = is_bare ? 1 : 2;
    switch (c) {
      case 'Y':
        digits(year, 4);
        break;
      case 'y':
        digits(year % 100, two);
        break;
      case 'm':
        digits(month, two);
        break;
      case 'd':
        digits(day, two);
        break;
      case 'e':
        digits(day, two, ' ');
        break;
      case 'H':
        digits(hour, two);
        break;
      case 'I':
        digits((hour + 11) % 12 + 1, two);
        break;
      case 'M':
        digits(minute, two);
        break;
      case 'S':
        digits(second, two);
        break;
      case 'j':
        digits(day_of_year, is_bare ? 1 : 3);
        break;
      case 'p':
        out += hour < 12 ? "AM" : "PM";
        break;
      case 'b':
        out += std::string_view(kMonths[month - 1]).substr(0, 3);
        break;
      case 'B':
        out += kMonths[month - 1];
        break;
      case 'a':
        out += std::string_view(kDays[week_day]).substr(0, 3);
        break;
      case 'A':
        out += kDays[week_day];
        break;
      case 'F':
        out += format_date(date, "%Y-%m-%d");
        break;
      case 'T':
        out += format_date(date, "%H:%M:%S");
        break;
      case '%':
        out += '%';
        break;
      default:
        out += '%';
        out += c;
    }
  }
  return out;
}

}  // namespace sb::jinja
