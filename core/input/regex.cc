// The machine that runs compiled patterns.
#include "input/regex.h"

#include "input/unicode.h"

namespace sb {

namespace {
constexpr uint64_t kMostFailureBits = uint64_t(1) << 28;  // 32 MiB
constexpr size_t kNowhere = std::string_view::npos;
}  // namespace

RegexSearch::RegexSearch(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      patience_(64 * uint64_t(text.size()) + 20000),
      budget_(1000 * uint64_t(text.size()) + 2000000),
      run_failed_(regex.n_memo_, {1, 0}),
      marks_(regex.n_marks_, kNowhere) {}

bool RegexSearch::next_is(const CharSet& set, size_t& at) const {
  if (at >= text_.size()) return false;
  uint8_t b = uint8_t(text_[at]);
  if (b < 128) {
    if (!(set.ascii[b >> 6] >> (b & 63) & 1)) return false;
    ++at;
    return true;
  }
  size_t behind = at;
  if (!set.has(utf8_next(text_, behind))) return false;
  at = behind;
  return true;
}

bool is_regex_word(char32_t c) { return is_word(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || (c >= 0xBC && c <= 0xBE); }

bool RegexSearch::word_at(size_t at) const { return at < text_.size() && is_regex_word(utf8_next(text_, at)); }

// Patterns that cost too much so far get a bit for every (choice, place) that has failed; then none is tried twice.
void RegexSearch::remember_failures() {
  uint64_t bits = uint64_t(regex_.n_memo_) * (text_.size() + 1);
  patience_ = UINT64_MAX;
  if (regex_.n_marks_ || bits > kMostFailureBits) return;
  failed_.assign(size_t(bits / 64 + 1), 0);
  remembers_ = true;
}

std::optional<RegexSearch::Match> RegexSearch::next() {
  while (from_ <= text_.size() && !exhausted_) {
    size_t start = from_, end = 0;
    bool found = false;
    for (; start <= text_.size(); start += start < text_.size() ? utf8_length(text_[start]) : 1) {
      if (!regex_.can_start_[start < text_.size() ? uint8_t(text_[start]) : 256]) continue;
      stack_.clear();
      if ((found = match(0, start, 0, end, kNowhere)) || exhausted_) break;
    }
    if (!found) {
      from_ = text_.size() + 1;
      return std::nullopt;
    }
    // An empty match right behind the last match does not count; the search goes on one character later.
    if (start == end && last_end_ == end) {
      from_ = end + (end < text_.size() ? utf8_length(text_[end]) : 1);
      continue;
    }
    from_ = last_end_ = end;
    return Match{start, end};
  }
  return std::nullopt;
}

bool RegexSearch::match(uint32_t pc, size_t at, size_t base, size_t& end, size_t must_end) {
  using Op = Regex::Op;
  const size_t n = text_.size();
  const bool may_remember = regex_.n_marks_ == 0 && behind_ == 0;
  for (;;) {
    const Regex::Step& s = regex_.steps_[pc];
    bool ok = true;
    if (++steps_ > patience_) remember_failures();
    if (steps_ > budget_) return exhausted_ = true, false;
    if (remembers_ && may_remember && (s.op == Op::kSplit || s.op == Op::kAlternatives || s.op == Op::kRun)) {
      uint64_t bit = uint64_t(s.memo) * (n + 1) + at;
      if (failed_[bit >> 6] >> (bit & 63) & 1) goto fail;
      stack_.push_back({Kind::kFailed, pc, at, 0, 0});
    }
    switch (s.op) {
      case Op::kByte:
        ok = at < n && uint8_t(text_[at]) == s.a;
        ++at, ++pc;
        break;
      case Op::kSet:
        ok = next_is(regex_.sets_[s.a], at);
        ++pc;
        break;
      case Op::kRun: {
        const CharSet& set = regex_.sets_[s.a];
        auto& failed = run_failed_[s.memo];
        // A run that failed from an earlier place in the same run had all the ends that this one has.
        if (may_remember && at > failed.first && at < failed.second) {
          ok = false;
          break;
        }
        size_t first = at;
        uint32_t count = 0;
        while (count < s.min && next_is(set, at)) ++count;
        if (count < s.min) {
          ok = false;
          break;
        }
        size_t low = at;
        ++pc;
        if (s.mode == Regex::Mode::kLazy) {
          if (count < s.max) stack_.push_back({Kind::kExtend, pc - 1, at, s.max - count, 0});
          break;
        }
        while (count < s.max && next_is(set, at)) ++count;
        steps_ += (at - first) / 8;
        if (s.mode == Regex::Mode::kGreedy && at > low) {
          if (may_remember && at - first > 32 && s.max == UINT32_MAX) stack_.push_back({Kind::kRunFailed, pc - 1, first, at, 0});
          stack_.push_back({Kind::kBackOff, pc, at, low, 0});
        }
        break;
      }
      case Op::kSplit:
        stack_.push_back({Kind::kTry, s.b, at, 0, 0});
        pc = s.a;
        break;
      case Op::kAlternatives: {
        const Regex::Alternatives& table = regex_.alternatives_[s.a];
        uint64_t possible = table.possible[at < n ? uint8_t(text_[at]) : 256];
        if (!possible) {
          ok = false;
          break;
        }
        uint64_t rest = possible & (possible - 1);
        if (rest) stack_.push_back({Kind::kBranches, pc, at, 0, rest});
        pc = table.targets[size_t(__builtin_ctzll(possible))];
        break;
      }
      case Op::kJump:
        pc = s.a;
        break;
      case Op::kLineStart:
        ok = at == 0 || text_[at - 1] == '\n', ++pc;
        break;
      case Op::kLineEnd:
        ok = at == n || text_[at] == '\n', ++pc;
        break;
      case Op::kTextStart:
        ok = at == 0, ++pc;
        break;
      case Op::kTextEnd:
        ok = at == n, ++pc;
        break;
      case Op::kTextEndLine:
        ok = at == n || (at + 1 == n && text_[at] == '\n'), ++pc;
        break;
      case Op::kWordEdge:
      case Op::kNotWordEdge: {
        bool before = at > 0 && is_regex_word(utf8_before(text_, at));
        ok = (before != word_at(at)) == (s.op == Op::kWordEdge);
        ++pc;
        break;
      }
      case Op::kAhead:
      case Op::kNotAhead:
      case Op::kAtomic: {
        size_t inner_end = 0, top = stack_.size();
        bool found = match(pc + 1, at, top, inner_end, kNowhere);
        if (exhausted_) return false;
        stack_.resize(top);
        ok = found != (s.op == Op::kNotAhead);
        if (s.op == Op::kAtomic) at = inner_end;
        pc = s.a;
        break;
      }
      case Op::kBehind:
      case Op::kNotBehind: {
        size_t from = at, top = stack_.size(), inner_end = 0;
        uint32_t back = s.b;
        for (; back > 0 && from > 0; --back) {
          do --from;
          while (from > 0 && utf8_continues(text_[from]));
        }
        bool found = false;
        if (back == 0) {
          ++behind_;
          found = match(pc + 1, from, top, inner_end, at);
          --behind_;
          if (exhausted_) return false;
          stack_.resize(top);
        }
        ok = found == (s.op == Op::kBehind);
        pc = s.a;
        break;
      }
      case Op::kMark:
        stack_.push_back({Kind::kMark, s.a, marks_[s.a], 0, 0});
        marks_[s.a] = at;
        ++pc;
        break;
      case Op::kProgress:
        pc += marks_[s.a] == at ? 2 : 1;  // behind it stands the jump back, and behind that the loop's exit
        break;
      case Op::kMatch:
        if (must_end == kNowhere || at == must_end) {
          end = at;
          return true;
        }
        ok = false;
        break;
    }
    if (ok) continue;

  fail:
    for (;;) {
      if (stack_.size() == base) return false;
      Choice& c = stack_.back();
      if (c.kind == Kind::kTry) {
        pc = c.step, at = c.at;
        stack_.pop_back();
        break;
      }
      if (c.kind == Kind::kBranches) {
        pc = regex_.alternatives_[regex_.steps_[c.step].a].targets[size_t(__builtin_ctzll(c.branches))];
        at = c.at;
        c.branches &= c.branches - 1;
        if (!c.branches) stack_.pop_back();
        break;
      }
      if (c.kind == Kind::kBackOff) {
        do --c.at;
        while (utf8_continues(text_[c.at]));
        pc = c.step, at = c.at;
        if (c.at <= c.low) stack_.pop_back();
        break;
      }
      if (c.kind == Kind::kExtend) {
        const Regex::Step& run = regex_.steps_[c.step];
        if (!next_is(regex_.sets_[run.a], c.at)) {
          stack_.pop_back();
          continue;
        }
        pc = c.step + 1, at = c.at;
        if (run.max != UINT32_MAX && --c.low == 0) stack_.pop_back();
        break;
      }
      if (c.kind == Kind::kRunFailed) {
        run_failed_[regex_.steps_[c.step].memo] = {c.at, c.low};
      } else if (c.kind == Kind::kFailed) {
        uint64_t bit = uint64_t(regex_.steps_[c.step].memo) * (n + 1) + c.at;
        failed_[bit >> 6] |= uint64_t(1) << (bit & 63);
      } else {  // kMark
        marks_[c.step] = c.at;
      }
      stack_.pop_back();
    }
  }
}

}  // namespace sb
