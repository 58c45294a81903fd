#include "input/pre_tokenizer.h"

#include "input/model.h"  // byte_letter
#include "input/unicode.h"

namespace sb {

const char kGpt2Pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

namespace {

using Range = Pieces::Range;
struct Part {
  size_t start, end;
  bool matches;
};

void add(std::vector<Range>& out, size_t start, size_t end) {
  if (end > start) out.push_back({start, end});
}

/// Lays the parts, which cover a piece, together as the behaviour says.
void split(const std::vector<Part>& parts, SplitBehavior behavior, std::vector<Range>& out) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Part& p : parts) {
        if (!p.matches) add(out, p.start, p.end);
      }
      return;
    case SplitBehavior::kIsolated:
      for (const Part& p : parts) add(out, p.start, p.end);
      return;
    case SplitBehavior::kContiguous:
    case SplitBehavior::kMergedWithPrevious: {
      std::vector<Range> merged;
      bool before = false;
      for (const Part& p : parts) {
        bool joins = behavior == SplitBehavior::kContiguous ? p.matches == before : p.matches && !before;
        if (joins && !merged.empty()) {
          merged.back().end = p.end;
        } else {
          merged.push_back({p.start, p.end});
        }
        before = p.matches;
      }
      for (const Range& r : merged) add(out, r.start, r.end);
      return;
    }
    case SplitBehavior::kMergedWithNext: {
      std::vector<Range> merged;
      bool before = false;
      for (size_t i = parts.size(); i-- > 0;) {
        const Part& p = parts[i];
        if (p.matches && !before && !merged.empty()) {
          merged.back().start = p.start;
        } else {
          merged.push_back({p.start, p.end});
        }
        before = p.matches;
      }
      for (size_t i = merged.size(); i-- > 0;) add(out, merged[i].start, merged[i].end);
      return;
    }
  }
}

/// Parts by a test on characters: each that passes is a match of its own.
template <class F>
void parts_by(std::string_view text, size_t start, size_t end, F is_match, std::vector<Part>& parts) {
  parts.clear();
  size_t from = start;
  for (size_t at = start; at < end;) {
    size_t here = at;
    if (!is_match(utf8_next(text, at))) continue;
    if (from < here) parts.push_back({from, here, false});
    parts.push_back({here, at, true});
    from = at;
  }
  if (from < end) parts.push_back({from, end, false});
}

bool parts_by_pattern(const Pattern& pattern, std::string_view text, const Range& r, bool inverted,
                      std::vector<RegexSearch::Match>& matches, std::vector<Part>& parts) {
  parts.clear();
  if (!pattern.find_all(text.substr(r.start, r.end - r.start), matches)) return false;
  size_t from = r.start;
  for (auto [start, end] : matches) {
    start += r.start, end += r.start;
    if (from != start) parts.push_back({from, start, inverted});
    parts.push_back({start, end, !inverted});
    from = end;
  }
  if (from != r.end) parts.push_back({from, r.end, inverted});
  return true;
}

class PreTokenizer {
 public:
  PreTokenizer(Pieces& pieces, bool at_start) : p_(pieces), at_start_(at_start) {}

  Status apply(const PreTokenizerStep& s) {
    switch (s.kind) {
      case PreTokenizerStep::kByteLevel:
        return byte_level(s);
      case PreTokenizerStep::kMetaspace:
        return metaspace(s);
      case PreTokenizerStep::kSplit:
        return split_by_pattern(s.pattern, s.inverted, s.behavior);
      case PreTokenizerStep::kDigits:
        return by([](char32_t c) { return is_number(c); }, s.individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
      case PreTokenizerStep::kBert:
        SB_OK(by(is_space, SplitBehavior::kRemoved));
        return by(is_punctuation, SplitBehavior::kIsolated);
      case PreTokenizerStep::kPunctuation:
        return by(is_punctuation, s.behavior);
      case PreTokenizerStep::kWhitespaceSplit:
        return by(is_space, SplitBehavior::kRemoved);
      case PreTokenizerStep::kDelimiter:
        return by([&](char32_t c) { return c == s.character; }, SplitBehavior::kRemoved);
      case PreTokenizerStep::kWhitespace:
        return whitespace();
      case PreTokenizerStep::kFixedLength:
        return fixed_length(s.length);
    }
    return {};
  }

 private:
  static bool is_punctuation(char32_t c) { return c < 128 ? is_ascii_punctuation(c) : category_bit(c) & kCategoryP; }

  template <class F>
  Status by(F is_match, SplitBehavior behavior) {
    next_.clear();
    for (const Range& r : p_.ranges) {
      parts_by(p_.text, r.start, r.end, is_match, parts_);
      split(parts_, behavior, next_);
    }
    p_.ranges.swap(next_);
    return {};
  }

  Status split_by_pattern(const Pattern& pattern, bool inverted, SplitBehavior behavior) {
    next_.clear();
    for (const Range& r : p_.ranges) {
      if (!parts_by_pattern(pattern, p_.text, r, inverted, matches_, parts_))
        return err(Code::kTokenizerInvalid, {{"why", "a pre-tokenizer's pattern takes too many steps on this text"}});
      split(parts_, behavior, next_);
    }
    p_.ranges.swap(next_);
    return {};
  }

  // \w+|[^\w\s]+
  Status whitespace() {
    next_.clear();
    for (const Range& r : p_.ranges) {
      int before = 0;
      size_t from = r.start;
      for (size_t at = r.start; at < r.end;) {
        size_t here = at;
        char32_t c = utf8_next(p_.text, at);
        int kind = is_word(c) || c == 0x200C || c == 0x200D ? 1 : is_space(c) ? 0 : 2;
        if (kind == before) continue;
        if (before) add(next_, from, here);
        before = kind, from = here;
      }
      if (before) add(next_, from, r.end);
    }
    p_.ranges.swap(next_);
    return {};
  }

  Status fixed_length(size_t length) {
    next_.clear();
    for (const Range& r : p_.ranges) {
      size_t from = r.start, n = 0;
      for (size_t at = r.start; at < r.end; ++n) {
        if (n == length) add(next_, from, at), from = at, n = 0;
        at += utf8_length(p_.text[at]);
      }
      add(next_, from, r.end);
    }
    p_.ranges.swap(next_);
    return {};
  }

  /// Writes every piece anew, by `write(piece, begins_the_input, out)`.
  template <class F>
  void rewrite(F write) {
    std::string out;
    out.reserve(p_.text.size() + p_.text.size() / 8 + 16);
    if (!p_.ranges.empty() && p_.ranges[0].start > 0) at_start_ = false;  // what stood there has been removed
    bool first = at_start_;
    for (Range& r : p_.ranges) {
      size_t start = out.size();
      write(p_.text.substr(r.start, r.end - r.start), first, out);
      r = {start, out.size()};
      first = false;
    }
    p_.buffer.swap(out);
    p_.text = p_.buffer;
  }

  Status byte_level(const PreTokenizerStep& s) {
    bool lacks_space = false;
    for (const Range& r : p_.ranges) lacks_space = lacks_space || p_.text[r.start] != ' ';
    if (s.prefix_space && lacks_space) {
      rewrite([](std::string_view piece, bool, std::string& out) {
        if (piece[0] != ' ') out += ' ';
        out += piece;
      });
    }
    if (s.uses_regex) SB_OK(split_by_pattern(s.pattern, false, SplitBehavior::kIsolated));
    if (s.maps_bytes) {
      rewrite([](std::string_view piece, bool, std::string& out) {
        for (char b : piece) out += byte_letter(uint8_t(b));
      });
    }
    return {};
  }

  Status metaspace(const PreTokenizerStep& s) {
    std::string mark;
    utf8_append(mark, s.character);
    rewrite([&](std::string_view piece, bool first, std::string& out) {
      if (s.prepend == PreTokenizerStep::kAlways || (s.prepend == PreTokenizerStep::kFirst && first)) {
        if (piece[0] != ' ' && !piece.starts_with(mark)) out += mark;
      }
      for (char b : piece) {
        if (b == ' ') {
          out += mark;
        } else {
          out += b;
        }
      }
    });
    if (s.splits) return by([&](char32_t c) { return c == s.character; }, SplitBehavior::kMergedWithNext);
    return {};
  }

  Pieces& p_;
  bool at_start_;
  std::vector<Range> next_;
  std::vector<Part> parts_;
  std::vector<RegexSearch::Match> matches_;
};

}  // namespace

Status pre_tokenize(const std::vector<PreTokenizerStep>& steps, std::string_view text, bool at_start, Pieces& pieces) {
  pieces.text = text;
  pieces.ranges.clear();
  if (text.empty()) return {};
  pieces.ranges.push_back({0, text.size()});
  PreTokenizer pre_tokenizer(pieces, at_start);
  for (const PreTokenizerStep& s : steps) SB_OK(pre_tokenizer.apply(s));
  return {};
}

}  // namespace sb
