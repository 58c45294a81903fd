#include <cstring>

#include "input/jinja.h"

namespace sb::jinja {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || uint8_t(c) >= 0x80; }

void append_utf8(std::string& out, uint32_t c) {
  if (c >= 0x110000 || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
  if (c < 0x80) {
    out += char(c);
  } else if (c < 0x800) {
    out += char(0xC0 | c >> 6);
    out += char(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += char(0xE0 | c >> 12);
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  } else {
    out += char(0xF0 | c >> 18);
    out += char(0x80 | (c >> 12 & 0x3F));
    out += char(0x80 | (c >> 6 & 0x3F));
    out += char(0x80 | (c & 0x3F));
  }
}

class Lexer {
 public:
  Lexer(std::string source, Failure& failure) : source_(std::move(source)), failure_(failure) {}

  std::vector<Token> run() {
    while (at_ < source_.size() && !failure_.happened) text_and_tag();
    push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool looking_at(std::string_view s, size_t from) const { return std::string_view(source_).substr(from).starts_with(s); }
  bool looking_at(std::string_view s) const { return looking_at(s, at_); }
  void push(TokenKind kind, std::string_view text) { tokens_.push_back({kind, line_, std::string(text)}); }
  void move_to(size_t to) {
    for (; at_ < to; ++at_) line_ += source_[at_] == '\n';
  }
  void skip_spaces() {
    size_t to = at_;
    while (to < source_.size() && is_space(source_[to])) ++to;
    move_to(to);
  }

  // Text up to the next tag, and the tag itself.
  void text_and_tag() {
    size_t from = at_;
    size_t tag = from;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        tag = source_.size();
        break;
      }
      if (char c = source_[tag + 1]; c == '{' || c == '%' || c == '#') break;
    }
    std::string_view text = std::string_view(source_).substr(from, tag - from);
    if (tag == source_.size()) {
      data(text);
      return move_to(tag);
    }
    char kind = source_[tag + 1];
    size_t inside = tag + 2;
    char sign = inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+') ? source_[inside] : ' ';
    if (sign != ' ') ++inside;
    data(stripped(text, sign, kind == '{'));
    move_to(inside);
    if (kind == '#') return comment();
    if (kind == '{') {
      push(TokenKind::kOutputBegin, "");
    } else {
      if (raw()) return;
      push(TokenKind::kBlockBegin, "");
    }
    inside_tag(kind == '{');
  }

  // {%- takes all whitespace before it; lstrip_blocks takes the indentation of a block or comment that stands first on its line.
  std::string_view stripped(std::string_view text, char sign, bool is_output) const {
    if (sign == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
      return text;
    }
    if (sign == '+' || is_output) return text;
    size_t line_start = text.rfind('\n') + 1;  // npos + 1 = 0
    if (line_start == 0 && !is_line_start_) return text;
    for (size_t i = line_start; i < text.size(); ++i) {
      if (!is_space(text[i])) return text;
    }
    return text.substr(0, line_start);
  }

  void data(std::string_view text) {
    if (!text.empty()) push(TokenKind::kData, text);
  }

  // At the end of a tag, `at_` on its sign or its closing pair: trim_blocks takes one line end.
  void close(size_t n_sign, bool trims) {
    char sign = n_sign ? source_[at_] : ' ';
    size_t from = at_;
    move_to(at_ + n_sign + 2);
    if (sign == '-') {
      skip_spaces();
    } else if (trims && sign != '+' && looking_at("\n")) {
      move_to(at_ + 1);
    }
    is_line_start_ = at_ > from && source_[at_ - 1] == '\n';
  }

  void comment() {
    size_t end = source_.find("#}", at_);
    if (end == std::string::npos) return failure_.set(line_, "a comment {# is not closed");
    bool has_sign = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    move_to(end - has_sign);
    close(has_sign, true);
  }

  // {% raw %} … {% endraw %}, when we are at its name.
  bool raw() {
    size_t p = at_;
    while (p < source_.size() && is_space(source_[p])) ++p;
    if (!looking_at("raw", p)) return false;
    p += 3;
    while (p < source_.size() && is_space(source_[p])) ++p;
    bool has_sign = looking_at("-%}", p);
    if (!has_sign && !looking_at("%}", p)) return false;
    move_to(p);
    close(has_sign, false);
    size_t from = at_;
    for (size_t tag = source_.find("{%", from); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      size_t q = tag + 2;
      char sign = q < source_.size() && (source_[q] == '-' || source_[q] == '+') ? source_[q] : ' ';
      if (sign != ' ') ++q;
      while (q < source_.size() && is_space(source_[q])) ++q;
      if (!looking_at("endraw", q)) continue;
      q += 6;
      while (q < source_.size() && is_space(source_[q])) ++q;
      bool ends_signed = looking_at("-%}", q) || looking_at("+%}", q);
      if (!ends_signed && !looking_at("%}", q)) continue;
      data(stripped(std::string_view(source_).substr(from, tag - from), sign, false));
      move_to(q);
      close(ends_signed, true);
      return true;
    }
    failure_.set(line_, "{% raw %} is not closed");
    return true;
  }

  void inside_tag(bool is_output) {
    int32_t opened = line_;
    std::string brackets;  // those still open: "}}" inside a dictionary does not end the tag
    const char* end = is_output ? "}}" : "%}";
    for (;;) {
      skip_spaces();
      if (at_ >= source_.size()) return failure_.set(opened, std::string("a tag is not closed by ") + end);
      if (brackets.empty()) {
        bool has_sign = (source_[at_] == '-' || (source_[at_] == '+' && !is_output)) && looking_at(end, at_ + 1);
        if (has_sign || looking_at(end)) {
          push(is_output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
          return close(has_sign, !is_output);
        }
      }
      char c = source_[at_];
      if (c == '"' || c == '\'') {
        string(c);
      } else if (is_digit(c)) {
        number();
      } else if (is_name_start(c)) {
        size_t to = at_;
        while (to < source_.size() && (is_name_start(source_[to]) || is_digit(source_[to]))) ++to;
        push(TokenKind::kName, std::string_view(source_).substr(at_, to - at_));
        at_ = to;
      } else {
        sign(c, brackets);
      }
      if (failure_.happened) return;
    }
  }

  void sign(char c, std::string& brackets) {
    for (std::string_view two : {"//", "**", "==", "!=", "<=", ">="}) {
      if (!looking_at(two)) continue;
      push(TokenKind::kOperator, two);
      at_ += 2;
      return;
    }
    if (!c || !std::strchr("+-*/%~[](){}<>=.:|,", c)) return failure_.set(line_, std::string("unexpected character ") + c);
    if (c == '(' || c == '[' || c == '{') brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) return failure_.set(line_, std::string("unexpected ") + c);
      brackets.pop_back();
    }
    push(TokenKind::kOperator, std::string_view(&c, 1));
    ++at_;
  }

  void number() {
    std::string digits;
    bool is_float = false;
    auto take_digits = [&] {
      for (; at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_'); ++at_) {
        if (source_[at_] != '_') digits += source_[at_];
      }
    };
    auto digit_at = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    take_digits();
    bool after_dot = !tokens_.empty() && tokens_.back().text == ".";  // x.0.1 is two steps
    if (!after_dot && looking_at(".") && digit_at(at_ + 1)) {
      is_float = true;
      digits += source_[at_++];
      take_digits();
    }
    if (looking_at("e") || looking_at("E")) {
      size_t p = at_ + 1;
      if (p < source_.size() && (source_[p] == '+' || source_[p] == '-')) ++p;
      if (digit_at(p)) {
        is_float = true;
        digits.append(source_, at_, p - at_);
        at_ = p;
        take_digits();
      }
    }
    push(is_float ? TokenKind::kFloat : TokenKind::kInt, digits);
  }

  void string(char quote) {
    int32_t opened = line_;
    std::string out;
    size_t p = at_ + 1;
    for (; p < source_.size() && source_[p] != quote; ++p) {
      if (source_[p] != '\\' || p + 1 >= source_.size()) {
        out += source_[p];
        continue;
      }
      char c = source_[++p];
      const char* plain = "n\nt\tr\rb\bf\fv\va\a\\\\''\"\"";
      size_t n_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (n_hex) {
        uint32_t code = 0;
        for (size_t i = 0; i < n_hex; ++i) {
          char h = p + 1 < source_.size() ? source_[p + 1] : '\0';
          int v = is_digit(h) ? h - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10 : h >= 'A' && h <= 'F' ? h - 'A' + 10 : -1;
          if (v < 0) return failure_.set(line_, std::string("a \\") + c + " in a text lacks hexadecimal digits");
          code = code << 4 | uint32_t(v);
          ++p;
        }
        append_utf8(out, code);
        continue;
      }
      if (c == '\n') continue;
      bool is_known = false;
      for (const char* pair = plain; *pair; pair += 2) {
        if (*pair != c) continue;
        out += pair[1];
        is_known = true;
        break;
      }
      if (!is_known) {  // Python keeps an escape it does not know
        out += '\\';
        out += c;
      }
    }
    if (p >= source_.size()) return failure_.set(opened, "a text is not closed");
    tokens_.push_back({TokenKind::kText, line_, std::move(out)});
    move_to(p + 1);
  }

  std::string source_;
  Failure& failure_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int32_t line_ = 1;
  bool is_line_start_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, Failure& failure) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {  // every line end is \n, and the last one does not count
    if (source[i] != '\r') {
      text += source[i];
    } else {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(std::move(text), failure).run();
}

}  // namespace sb::jinja
