// Regular expressions as tokenizer files use them: the Oniguruma syntax (Ruby's), compiled to a small backtracking machine.
// Left out, and refused by name: back-references, conditionals, \X, \R, \G, named calls, look-behind of unbounded width.
//
// Hostile patterns and texts cannot hang it: a state that failed once at a place is not tried there again, and the steps are counted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace sb {

/// Oniguruma's \w: is_word(), and ² ³ ¹ ¼ ½ ¾.
bool is_regex_word(char32_t c);

/// A set of characters: a union of ranges, categories, kinds and other sets; then cut with `all_of`, then negated.
struct CharSet {
  bool negated = false;
  bool folds_case = false;
  bool space = false, not_space = false, word = false, not_word = false;
  uint8_t scripts = 0, not_scripts = 0;  // bits by Script
  uint32_t categories = 0;
  std::vector<std::pair<char32_t, char32_t>> ranges;
  std::vector<CharSet> any_of, all_of;
  std::array<uint64_t, 2> ascii{};  // filled by finish(): the answer for the first 128 characters

  bool has(char32_t c) const { return c < 128 ? (ascii[c >> 6] >> (c & 63) & 1) : has_slow(c); }
  void finish();

 private:
  bool has_slow(char32_t c) const;
  bool has_exact(char32_t c) const;
};

class Regex {
 public:
  /// Errors: kTokenizerUnsupported {what, name, known} for syntax that we lack, kTokenizerInvalid {why} for syntax that nobody has.
  static Result<Regex> compile(std::string_view pattern);

  enum class Op : uint8_t {
    kByte,
    kSet,
    kRun,
    kSplit,
    kAlternatives,
    kJump,
    kLineStart,
    kLineEnd,
    kTextStart,
    kTextEnd,
    kTextEndLine,
    kWordEdge,
    kNotWordEdge,
    kAhead,
    kNotAhead,
    kBehind,
    kNotBehind,
    kAtomic,
    kMark,
    kProgress,
    kMatch
  };
  enum class Mode : uint8_t { kGreedy, kLazy, kPossessive };
  struct Step {
    Op op;
    Mode mode = Mode::kGreedy;
    uint32_t a =
        0;  // kByte: the byte; kSet, kRun: the set; kSplit: first choice; kJump: target; groups: where to go on; kAlternatives: table
    uint32_t b = 0;             // kSplit: second choice; kBehind: characters to step back
    uint32_t min = 0, max = 0;  // kRun
    uint32_t memo = 0;          // number among the steps that remember failures
  };
  struct Alternatives {
    std::vector<uint32_t> targets;
    std::array<uint64_t, 257> possible;  // by the next byte (256: the end): which branches can begin there
  };

 private:
  friend class RegexCompiler;
  friend class RegexSearch;
  std::vector<Step> steps_;
  std::vector<CharSet> sets_;
  std::vector<Alternatives> alternatives_;
  std::array<bool, 257> can_start_{};
  uint32_t n_memo_ = 0, n_marks_ = 0;
};

/// The matches of a pattern in a text, left to right, as Oniguruma's find_iter gives them.
class RegexSearch {
 public:
  RegexSearch(const Regex& regex, std::string_view text);
  struct Match {
    size_t start, end;
  };
  /// The next match; nothing at the end. When the pattern has cost too many steps, nothing too, and exhausted() tells.
  std::optional<Match> next();
  bool exhausted() const { return exhausted_; }

 private:
  enum class Kind : uint8_t { kTry, kBranches, kBackOff, kExtend, kRunFailed, kFailed, kMark };
  struct Choice {
    Kind kind;
    uint32_t step;
    size_t at, low;
    uint64_t branches;
  };
  bool match(uint32_t step, size_t at, size_t base, size_t& end, size_t must_end);
  bool next_is(const CharSet& set, size_t& at) const;
  bool word_at(size_t at) const;
  void remember_failures();

  const Regex& regex_;
  std::string_view text_;
  size_t from_ = 0, last_end_ = std::string_view::npos;
  uint64_t steps_ = 0, patience_, budget_;
  bool exhausted_ = false, remembers_ = false;
  int behind_ = 0;  // depth of look-behinds: their failures depend on where they must end, so they are not remembered
  std::vector<Choice> stack_;
  std::vector<uint64_t> failed_;                       // bit memo · (n + 1) + at
  std::vector<std::pair<size_t, size_t>> run_failed_;  // by memo: a run from `first` that reached `second` and failed
  std::vector<size_t> marks_;
};

}  // namespace sb
