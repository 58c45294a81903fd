// Pattern → syntax tree → steps.
#include <memory>

#include "input/regex.h"
#include "input/unicode.h"

namespace sb {

namespace {

constexpr size_t kMostSteps = 20000;
constexpr int kMostPatternDepth = 64;
constexpr uint32_t kUnbounded = UINT32_MAX;

struct Node;
using NodePtr = std::unique_ptr<Node>;
struct Node {
  enum Kind { kEmpty, kSet, kSequence, kChoice, kRepeat, kAssert, kLook, kAtomic } kind = kEmpty;
  CharSet set;                    // kSet
  std::vector<NodePtr> children;  // the others
  uint32_t min = 0, max = 0;      // kRepeat
  Regex::Mode mode{};             // kRepeat
  Regex::Op op{};                 // kAssert, kLook
};

NodePtr make(Node::Kind kind) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  return node;
}

struct Posix {
  std::string_view name;
  uint32_t categories;
  bool space, word;
};
constexpr uint32_t kAlphabetic = kCategoryL | kCategoryM | (1u << 10);  // letters, marks, letter-like numbers: nearly Alphabetic
constexpr Posix kPosix[] = {{"alpha", kAlphabetic, false, false},
                            {"digit", kCategoryNd, false, false},
                            {"alnum", kAlphabetic | kCategoryNd, false, false},
                            {"upper", kCategoryLu, false, false},
                            {"lower", kCategoryLl, false, false},
                            {"punct", kCategoryP | kCategoryS, false, false},
                            {"space", 0, true, false},
                            {"word", kAlphabetic | kCategoryNd | (1u << 12), false, false},
                            {"cntrl", kCategoryCc, false, false}};

}  // namespace

void CharSet::finish() {
  for (CharSet& s : any_of) s.finish();
  for (CharSet& s : all_of) s.finish();
  ascii = {};
  for (char32_t c = 0; c < 128; ++c) {
    if (has_slow(c)) ascii[c >> 6] |= uint64_t(1) << (c & 63);
  }
}

bool CharSet::has_exact(char32_t c) const {
  if (categories & category_bit(c)) return true;
  if ((space || not_space) && (is_space(c) ? space : not_space)) return true;
  if ((word || not_word) && (is_regex_word(c) ? word : not_word)) return true;
  if ((scripts | not_scripts) != 0) {
    unsigned bit = 1u << unsigned(script_of(c));
    if ((scripts & bit) || (not_scripts & ~bit)) return true;
  }
  for (auto [low, high] : ranges) {
    if (c >= low && c <= high) return true;
  }
  for (const CharSet& s : any_of) {
    if (s.has(c)) return true;
  }
  return false;
}

bool CharSet::has_slow(char32_t c) const {
  bool in = has_exact(c);
  if (!in && folds_case) {
    // Simple case folding: the other case, and the two letters outside ASCII that fold into it (ſ and the Kelvin sign).
    char32_t low = c == 0x17F ? 's' : lower_simple(c);
    in = has_exact(low) || (low >= 'a' && low <= 'z' && has_exact(low - 32)) || (low == 's' && has_exact(0x17F)) ||
         (low == 'k' && has_exact(0x212A));
    for (auto [first, last] : ranges) {  // a pattern's upper-case letter outside ASCII
      if (!in && first == last && first >= 0x80 && lower_simple(first) == low) in = true;
    }
  }
  for (const CharSet& s : all_of) in = in && s.has(c);
  return in != negated;
}

// Reads a pattern by recursive descent and lays the steps out.
class RegexCompiler {
 public:
  explicit RegexCompiler(std::string_view pattern) : pattern_(pattern) {}

  Result<Regex> compile() {
    size_t bad = utf8_invalid_at(pattern_);
    if (bad != std::string_view::npos) return wrong("not UTF-8");
    SB_TRY(NodePtr tree, choice(0));
    if (at_ < pattern_.size()) return wrong("unmatched )");
    SB_OK(emit(*tree));
    add({.op = Regex::Op::kMatch});
    if (out_.steps_.size() > kMostSteps) return wrong("too large");
    First first = first_of(*tree);
    for (size_t i = 0; i < 256; ++i) out_.can_start_[i] = first.nullable || first.bytes[i];
    out_.can_start_[256] = first.nullable;
    for (Regex::Step& s : out_.steps_) {
      if (s.op == Regex::Op::kRun || s.op == Regex::Op::kSplit || s.op == Regex::Op::kAlternatives) s.memo = out_.n_memo_++;
    }
    return std::move(out_);
  }

 private:
  struct First {
    std::array<bool, 256> bytes{};
    bool nullable = false;
  };

  std::unexpected<Error> wrong(std::string_view why) const {
    return err(Code::kTokenizerInvalid,
               {{"why", "the pattern " + std::string(pattern_) + " is " + std::string(why) + " at byte " + std::to_string(at_)}});
  }
  std::unexpected<Error> unknown(std::string_view what) const {
    return err(Code::kTokenizerUnsupported,
               {{"what", "the regular expression syntax"},
                {"name", what},
                {"known", "classes, \\p{category}, groups, (?i:), look-around, greedy, lazy and possessive repeats"}});
  }
  bool more() const { return at_ < pattern_.size(); }
  bool eat(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  Result<NodePtr> choice(int depth) {
    if (depth > kMostPatternDepth) return wrong("nested too deeply");
    bool folds_before = folds_;
    NodePtr node = make(Node::kChoice);
    do {
      SB_TRY(NodePtr branch, sequence(depth));
      node->children.push_back(std::move(branch));
    } while (eat("|"));
    folds_ = folds_before;
    if (node->children.size() == 1) return std::move(node->children[0]);
    return node;
  }

  Result<NodePtr> sequence(int depth) {
    NodePtr node = make(Node::kSequence);
    while (more() && pattern_[at_] != '|' && pattern_[at_] != ')') {
      SB_TRY(NodePtr item, atom(depth));
      SB_TRY(item, repeats(std::move(item)));
      node->children.push_back(std::move(item));
      if (++n_nodes_ > kMostSteps) return wrong("too large");
    }
    return node;
  }

  Result<NodePtr> repeats(NodePtr item) {
    for (int n = 0; more(); ++n) {
      uint32_t min, max;
      bool interval = false;
      size_t before = at_;
      if (eat("*")) {
        min = 0, max = kUnbounded;
      } else if (eat("+")) {
        min = 1, max = kUnbounded;
      } else if (eat("?")) {
        min = 0, max = 1;
      } else if (pattern_[at_] == '{') {
        if (!counts(min, max)) break;  // a brace that is no repeat is a plain character
        interval = true;
      } else {
        break;
      }
      if (n > 8) return wrong("repeated too often");
      if (item->kind == Node::kAssert || item->kind == Node::kLook) return unknown(pattern_.substr(before, 1));
      if (max != kUnbounded && max < min) return wrong("repeated backwards");
      if ((max != kUnbounded && max > 1000) || min > 1000) return unknown("repeat of more than 1000");
      NodePtr repeat = make(Node::kRepeat);
      repeat->min = min, repeat->max = max;
      if (eat("?")) {
        repeat->mode = Regex::Mode::kLazy;
      } else if (!interval && eat("+")) {  // in Oniguruma, {1,3}+ is a repeat of a repeat
        repeat->mode = Regex::Mode::kPossessive;
      }
      repeat->children.push_back(std::move(item));
      item = std::move(repeat);
    }
    return item;
  }

  bool counts(uint32_t& min, uint32_t& max) {
    size_t at = at_ + 1;
    auto number = [&](uint32_t& n) {
      size_t start = at;
      for (n = 0; at < pattern_.size() && pattern_[at] >= '0' && pattern_[at] <= '9'; ++at) {
        if (n < 100000) n = n * 10 + uint32_t(pattern_[at] - '0');
      }
      return at > start;
    };
    bool low = number(min), high = low;
    max = min;
    if (at < pattern_.size() && pattern_[at] == ',') {
      ++at;
      high = number(max);
      if (!high) max = kUnbounded;
      if (!low && !high) return false;
    } else if (!low) {
      return false;
    }
    if (at >= pattern_.size() || pattern_[at] != '}') return false;
    at_ = at + 1;
    return true;
  }

  NodePtr set_node(CharSet set) {
    set.folds_case = folds_;
    NodePtr node = make(Node::kSet);
    node->set = std::move(set);
    return node;
  }
  NodePtr character(char32_t c) {
    CharSet set;
    set.ranges.emplace_back(c, c);
    return set_node(std::move(set));
  }
  NodePtr assertion(Regex::Op op) {
    NodePtr node = make(Node::kAssert);
    node->op = op;
    return node;
  }

  Result<NodePtr> atom(int depth) {
    if (eat("(")) return group(depth);
    if (eat("[")) {
      SB_TRY(CharSet set, bracket(depth));
      return set_node(std::move(set));
    }
    if (eat(".")) {
      CharSet set;
      set.ranges.emplace_back('\n', '\n');
      set.negated = true;
      return set_node(std::move(set));
    }
    if (eat("^")) return assertion(Regex::Op::kLineStart);
    if (eat("$")) return assertion(Regex::Op::kLineEnd);
    if (eat("\\")) {
      if (!more()) return wrong("cut off");
      switch (pattern_[at_]) {
        case 'b':
          return ++at_, assertion(Regex::Op::kWordEdge);
        case 'B':
          return ++at_, assertion(Regex::Op::kNotWordEdge);
        case 'A':
          return ++at_, assertion(Regex::Op::kTextStart);
        case 'z':
          return ++at_, assertion(Regex::Op::kTextEnd);
        case 'Z':
          return ++at_, assertion(Regex::Op::kTextEndLine);
        default:
          break;
      }
      CharSet set;
      SB_OK(escape(set));
      bool folds_before = folds_;
      folds_ = folds_ && !set.ranges.empty();  // a category outside brackets does not fold its case
      NodePtr node = set_node(std::move(set));
      folds_ = folds_before;
      return node;
    }
    if (pattern_[at_] == '*' || pattern_[at_] == '+' || pattern_[at_] == '?') return wrong("repeating nothing");
    return character(utf8_next(pattern_, at_));
  }

  Result<NodePtr> group(int depth) {
    bool folds_before = folds_;
    NodePtr wrapper;
    auto look = [&](Regex::Op op) { wrapper = make(Node::kLook), wrapper->op = op; };
    if (eat("?#")) {
      while (more() && pattern_[at_] != ')') ++at_;
      if (!eat(")")) return wrong("missing a )");
      return make(Node::kEmpty);
    }
    if (eat("?:")) {
    } else if (eat("?=")) {
      look(Regex::Op::kAhead);
    } else if (eat("?!")) {
      look(Regex::Op::kNotAhead);
    } else if (eat("?<=")) {
      look(Regex::Op::kBehind);
    } else if (eat("?<!")) {
      look(Regex::Op::kNotBehind);
    } else if (eat("?>")) {
      wrapper = make(Node::kAtomic);
    } else if (eat("?<") || eat("?P<")) {
      while (more() && pattern_[at_] != '>') ++at_;
      if (!eat(">")) return wrong("missing a >");
    } else if (eat("?")) {
      bool on = true, folds = folds_;
      for (; more() && pattern_[at_] != ':' && pattern_[at_] != ')'; ++at_) {
        if (pattern_[at_] == '-') {
          on = false;
        } else if (pattern_[at_] == 'i') {
          folds = on;
        } else {
          return unknown("(?" + std::string(1, pattern_[at_]));
        }
      }
      if (!more()) return wrong("missing a )");
      folds_ = folds;
      if (eat(")")) {  // (?i) holds to the end of the enclosing group: here, choice() takes the rest and resets it
        SB_TRY(NodePtr rest, choice(depth + 1));
        folds_ = folds;
        return rest;
      }
      eat(":");
    }
    SB_TRY(NodePtr inner, choice(depth + 1));
    folds_ = folds_before;
    if (!eat(")")) return wrong("missing a )");
    if (!wrapper) return inner;
    wrapper->children.push_back(std::move(inner));
    return wrapper;
  }

  // After the backslash: a character or a class, added to `set`. `single` gets the character, when it is one.
  Status escape(CharSet& set, char32_t* single = nullptr) {
    char32_t c = utf8_next(pattern_, at_);
    auto plain = [&](char32_t value) -> Status {
      if (single) *single = value;
      set.ranges.emplace_back(value, value);
      return {};
    };
    switch (c) {
      case 's':
        return set.space = true, Status();
      case 'S':
        return set.not_space = true, Status();
      case 'w':
        return set.word = true, Status();
      case 'W':
        return set.not_word = true, Status();
      case 'd':
        return set.categories |= kCategoryNd, Status();
      case 'D':
        return set.categories |= ~kCategoryNd, Status();
      case 'h':
      case 'H': {
        CharSet digits;
        digits.ranges = {{'0', '9'}, {'a', 'f'}, {'A', 'F'}};
        digits.negated = c == 'H';
        set.any_of.push_back(std::move(digits));
        return {};
      }
      case 'p':
      case 'P':
        return property(set, c == 'P');
      case 'n':
        return plain('\n');
      case 'r':
        return plain('\r');
      case 't':
        return plain('\t');
      case 'f':
        return plain('\f');
      case 'v':
        return plain('\v');
      case 'a':
        return plain('\a');
      case 'e':
        return plain(27);
      case '0':
        return plain(0);
      case 'x':
      case 'u': {
        bool braces = c == 'x' && eat("{");
        size_t most = braces ? 8 : c == 'u' ? 4 : 2, n = 0;
        uint32_t value = 0;
        for (; n < most && more(); ++n, ++at_) {
          char d = pattern_[at_];
          int digit = d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : d >= 'A' && d <= 'F' ? d - 'A' + 10 : -1;
          if (digit < 0) break;
          value = value * 16 + uint32_t(digit);
        }
        if (n == 0 || (braces && !eat("}")) || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return wrong("no character");
        return plain(value);
      }
      default:
        break;
    }
    if ((c >= '1' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      std::string name = "\\";
      utf8_append(name, c);
      return unknown(name);
    }
    return plain(c);
  }

  Status property(CharSet& set, bool negated) {
    std::string name;
    if (eat("{")) {
      size_t end = pattern_.find('}', at_);
      if (end == std::string_view::npos) return wrong("missing a }");
      name = pattern_.substr(at_, end - at_);
      at_ = end + 1;
    } else if (more()) {
      name = pattern_[at_++];
    }
    if (name.starts_with("^")) {
      negated = !negated;
      name.erase(0, 1);
    }
    auto script = [&](Script s) { (negated ? set.not_scripts : set.scripts) |= uint8_t(1u << unsigned(s)); };
    static constexpr std::pair<std::string_view, std::string_view> kLong[] = {{"Letter", "L"},
                                                                              {"Mark", "M"},
                                                                              {"Number", "N"},
                                                                              {"Punctuation", "P"},
                                                                              {"Punct", "P"},
                                                                              {"Symbol", "S"},
                                                                              {"Separator", "Z"},
                                                                              {"Other", "C"},
                                                                              {"Uppercase_Letter", "Lu"},
                                                                              {"Lowercase_Letter", "Ll"},
                                                                              {"Titlecase_Letter", "Lt"},
                                                                              {"Modifier_Letter", "Lm"},
                                                                              {"Other_Letter", "Lo"},
                                                                              {"Decimal_Number", "Nd"},
                                                                              {"Digit", "Nd"}};
    for (auto [full, brief] : kLong) {
      if (name == full) name = brief;
    }
    if (uint32_t mask = category_mask(name)) {
      set.categories |= negated ? ~mask : mask;
    } else if (name == "Han") {
      script(Script::kHan);
    } else if (name == "Hiragana") {
      script(Script::kHiragana);
    } else if (name == "Katakana") {
      script(Script::kKatakana);
    } else if (name == "Hangul") {
      CharSet hangul;
      hangul.ranges = {{0x1100, 0x11FF}, {0x302E, 0x302F}, {0x3131, 0x318E}, {0x3200, 0x321E}, {0x3260, 0x327E},
                       {0xA960, 0xA97C}, {0xAC00, 0xD7A3}, {0xD7B0, 0xD7C6}, {0xD7CB, 0xD7FB}, {0xFFA0, 0xFFDC}};
      hangul.negated = negated;
      set.any_of.push_back(std::move(hangul));
    } else if (name == "Alphabetic" || name == "Alpha") {
      set.categories |= negated ? ~kAlphabetic : kAlphabetic;
    } else if (name == "Space" || name == "White_Space") {
      (negated ? set.not_space : set.space) = true;
    } else if (name == "Any") {
      if (!negated) set.categories = ~0u;
    } else {
      return unknown("\\p{" + name + "}");
    }
    return {};
  }

  // After the [: up to the matching ].
  Result<CharSet> bracket(int depth) {
    if (depth > kMostPatternDepth) return wrong("nested too deeply");
    CharSet set;
    set.folds_case = folds_;
    bool negated = eat("^");
    bool first = true;
    for (;; first = false) {
      if (!more()) return wrong("missing a ]");
      if (!first && eat("]")) break;
      if (first && pattern_.substr(at_).starts_with("]")) {  // a ] that comes first is a character
        ++at_;
        set.ranges.emplace_back(']', ']');
        continue;
      }
      if (eat("&&")) {
        // What is left of && must also be in what is right of it.
        CharSet left = std::move(set);
        SB_TRY(CharSet right, bracket(depth + 1));  // it ends at the same ]
        set = CharSet();
        set.any_of.push_back(std::move(left));
        set.all_of.push_back(std::move(right));
        break;
      }
      if (eat("[:")) {
        bool inverse = eat("^");
        size_t end = pattern_.find(":]", at_);
        if (end == std::string_view::npos) return wrong("missing a :]");
        std::string_view name = pattern_.substr(at_, end - at_);
        const Posix* known = nullptr;
        for (const Posix& p : kPosix) {
          if (p.name == name) known = &p;
        }
        if (!known) return unknown("[:" + std::string(name) + ":]");
        at_ = end + 2;
        CharSet inner;
        inner.categories = known->categories, inner.space = known->space, inner.word = known->word, inner.negated = inverse;
        set.any_of.push_back(std::move(inner));
        continue;
      }
      if (eat("[")) {
        SB_TRY(CharSet inner, bracket(depth + 1));
        set.any_of.push_back(std::move(inner));
        continue;
      }
      constexpr char32_t kNone = UINT32_MAX;
      char32_t low = kNone;
      if (eat("\\")) {
        if (!more()) return wrong("cut off");
        if (eat("b")) {
          low = 8;
          set.ranges.emplace_back(low, low);
        } else {
          SB_OK(escape(set, &low));
        }
      } else {
        low = utf8_next(pattern_, at_);
        set.ranges.emplace_back(low, low);
      }
      if (low != kNone && at_ + 1 < pattern_.size() && pattern_[at_] == '-' && pattern_[at_ + 1] != ']') {
        size_t dash = at_++;
        char32_t high = kNone;
        if (pattern_[at_] == '[') {  // "a-[": the dash is a character
          at_ = dash + 1;
          set.ranges.emplace_back('-', '-');
          continue;
        }
        if (eat("\\")) {
          if (!more()) return wrong("cut off");
          CharSet end;
          SB_OK(escape(end, &high));
          if (high == kNone) {  // a class after the dash: three separate members
            set.ranges.emplace_back('-', '-');
            set.any_of.push_back(std::move(end));
            continue;
          }
        } else {
          high = utf8_next(pattern_, at_);
        }
        if (high < low) return wrong("a range backwards");
        set.ranges.back() = {low, high};
      }
    }
    set.negated = negated;
    return set;
  }

  // ---- Steps

  uint32_t here() const { return uint32_t(out_.steps_.size()); }
  uint32_t add(Regex::Step step) {
    out_.steps_.push_back(step);
    return here() - 1;
  }
  uint32_t set_index(const CharSet& set) {
    out_.sets_.push_back(set);
    out_.sets_.back().finish();
    return uint32_t(out_.sets_.size() - 1);
  }

  static bool nullable(const Node& node) {
    switch (node.kind) {
      case Node::kSet:
        return false;
      case Node::kSequence:
        for (const NodePtr& child : node.children) {
          if (!nullable(*child)) return false;
        }
        return true;
      case Node::kChoice:
        for (const NodePtr& child : node.children) {
          if (nullable(*child)) return true;
        }
        return false;
      case Node::kRepeat:
        return node.min == 0 || nullable(*node.children[0]);
      case Node::kAtomic:
        return nullable(*node.children[0]);
      default:
        return true;
    }
  }

  static First first_of(const Node& node) {
    First f;
    switch (node.kind) {
      case Node::kSet: {
        CharSet set = node.set;
        set.finish();
        for (size_t i = 0; i < 128; ++i) f.bytes[i] = set.has(char32_t(i));
        bool only_ascii = !set.negated && !set.folds_case && !set.space && !set.not_space && !set.word && !set.not_word && !set.scripts &&
                          !set.not_scripts && !set.categories && set.any_of.empty();
        for (auto [low, high] : set.ranges) only_ascii = only_ascii && high < 128;
        for (size_t i = 128; i < 256; ++i) f.bytes[i] = !only_ascii;
        return f;
      }
      case Node::kSequence:
        f.nullable = true;
        for (const NodePtr& child : node.children) {
          First part = first_of(*child);
          for (size_t i = 0; i < 256; ++i) f.bytes[i] |= part.bytes[i];
          f.nullable = part.nullable;
          if (!part.nullable) break;
        }
        return f;
      case Node::kChoice:
        for (const NodePtr& child : node.children) {
          First part = first_of(*child);
          for (size_t i = 0; i < 256; ++i) f.bytes[i] |= part.bytes[i];
          f.nullable |= part.nullable;
        }
        return f;
      case Node::kRepeat:
      case Node::kAtomic:
        f = first_of(*node.children[0]);
        f.nullable |= node.kind == Node::kRepeat && node.min == 0;
        return f;
      default:
        f.nullable = true;
        return f;
    }
  }

  // The one width, in characters, that everything the node matches has; or nothing.
  static std::optional<uint32_t> width(const Node& node) {
    switch (node.kind) {
      case Node::kSet:
        return 1;
      case Node::kSequence: {
        uint32_t sum = 0;
        for (const NodePtr& child : node.children) {
          auto w = width(*child);
          if (!w) return std::nullopt;
          sum += *w;
        }
        return sum;
      }
      case Node::kChoice: {
        auto all = width(*node.children[0]);
        for (const NodePtr& child : node.children) {
          if (width(*child) != all) return std::nullopt;
        }
        return all;
      }
      case Node::kRepeat: {
        auto w = width(*node.children[0]);
        if (!w || node.min != node.max) return std::nullopt;
        return *w * node.min;
      }
      case Node::kAtomic:
        return width(*node.children[0]);
      default:
        return 0;
    }
  }

  Status emit(const Node& node) {
    using Op = Regex::Op;
    if (out_.steps_.size() > kMostSteps) return wrong("too large");
    switch (node.kind) {
      case Node::kEmpty:
        return {};
      case Node::kSet: {
        const CharSet& s = node.set;
        bool one = s.ranges.size() == 1 && s.ranges[0].first == s.ranges[0].second && s.ranges[0].first < 128 && !s.negated &&
                   !s.folds_case && !s.space && !s.not_space && !s.word && !s.not_word && !s.scripts && !s.not_scripts && !s.categories &&
                   s.any_of.empty() && s.all_of.empty();
        if (one) {
          add({.op = Op::kByte, .a = uint32_t(s.ranges[0].first)});
        } else {
          add({.op = Op::kSet, .a = set_index(s)});
        }
        return {};
      }
      case Node::kSequence:
        for (const NodePtr& child : node.children) SB_OK(emit(*child));
        return {};
      case Node::kChoice:
        return emit_choice(node);
      case Node::kRepeat:
        return emit_repeat(node);
      case Node::kAssert:
        add({.op = node.op});
        return {};
      case Node::kAtomic:
        return emit_group(*node.children[0], Op::kAtomic, 0);
      case Node::kLook: {
        const Node& inner = *node.children[0];
        if (node.op == Op::kAhead || node.op == Op::kNotAhead) return emit_group(inner, node.op, 0);
        // Branches of a look-behind may differ in width: (?<=a|bc) is (?:(?<=a)|(?<=bc)), and (?<!a|bc) is (?<!a)(?<!bc).
        if (inner.kind == Node::kChoice && !width(inner)) {
          if (node.op == Op::kNotBehind) {
            for (const NodePtr& branch : inner.children) SB_OK(emit_behind(*branch, node.op));
            return {};
          }
          std::vector<uint32_t> jumps;
          for (size_t i = 0; i < inner.children.size(); ++i) {
            bool last = i + 1 == inner.children.size();
            uint32_t split = last ? 0 : add({.op = Op::kSplit});
            if (!last) out_.steps_[split].a = here();
            SB_OK(emit_behind(*inner.children[i], node.op));
            if (!last) {
              jumps.push_back(add({.op = Op::kJump}));
              out_.steps_[split].b = here();
            }
          }
          for (uint32_t j : jumps) out_.steps_[j].a = here();
          return {};
        }
        return emit_behind(inner, node.op);
      }
    }
    return {};
  }

  Status emit_behind(const Node& inner, Regex::Op op) {
    auto w = width(inner);
    if (!w) return unknown("look-behind of no fixed width");
    return emit_group(inner, op, *w);
  }
  Status emit_group(const Node& inner, Regex::Op op, uint32_t back) {
    uint32_t head = add({.op = op, .b = back});
    SB_OK(emit(inner));
    add({.op = Regex::Op::kMatch});
    out_.steps_[head].a = here();
    return {};
  }

  Status emit_choice(const Node& node) {
    using Op = Regex::Op;
    size_t n = node.children.size();
    std::vector<uint32_t> jumps;
    if (n <= 64) {
      Regex::Alternatives table;
      table.possible.fill(0);
      uint32_t index = uint32_t(out_.alternatives_.size());
      out_.alternatives_.emplace_back();
      add({.op = Op::kAlternatives, .a = index});
      for (size_t i = 0; i < n; ++i) {
        First first = first_of(*node.children[i]);
        for (size_t byte = 0; byte < 256; ++byte) {
          if (first.nullable || first.bytes[byte]) table.possible[byte] |= uint64_t(1) << i;
        }
        if (first.nullable) table.possible[256] |= uint64_t(1) << i;
        table.targets.push_back(here());
        SB_OK(emit(*node.children[i]));
        if (i + 1 < n) jumps.push_back(add({.op = Op::kJump}));
      }
      out_.alternatives_[index] = std::move(table);
    } else {
      for (size_t i = 0; i < n; ++i) {
        uint32_t split = i + 1 < n ? add({.op = Op::kSplit}) : 0;
        if (i + 1 < n) out_.steps_[split].a = here();
        SB_OK(emit(*node.children[i]));
        if (i + 1 < n) {
          jumps.push_back(add({.op = Op::kJump}));
          out_.steps_[split].b = here();
        }
      }
    }
    for (uint32_t j : jumps) out_.steps_[j].a = here();
    return {};
  }

  Status emit_repeat(const Node& node) {
    using Op = Regex::Op;
    const Node& inner = *node.children[0];
    if (inner.kind == Node::kSet) {
      add({.op = Op::kRun, .mode = node.mode, .a = set_index(inner.set), .min = node.min, .max = node.max});
      return {};
    }
    if (node.mode == Regex::Mode::kPossessive) {
      uint32_t head = add({.op = Op::kAtomic});
      SB_OK(emit_loop(node, inner, false));
      add({.op = Op::kMatch});
      out_.steps_[head].a = here();
      return {};
    }
    return emit_loop(node, inner, node.mode == Regex::Mode::kLazy);
  }

  Status emit_loop(const Node& node, const Node& inner, bool lazy) {
    using Op = Regex::Op;
    auto split = [&] { return add({.op = Op::kSplit}); };
    auto aim = [&](uint32_t s, uint32_t in, uint32_t out) {
      out_.steps_[s].a = lazy ? out : in;
      out_.steps_[s].b = lazy ? in : out;
    };
    for (uint32_t i = 0; i < node.min; ++i) SB_OK(emit(inner));
    if (node.max == kUnbounded) {
      uint32_t loop = split(), body = here();
      bool empty = nullable(inner);
      uint32_t mark = empty ? out_.n_marks_++ : 0;
      if (empty) add({.op = Op::kMark, .a = mark});
      SB_OK(emit(inner));
      if (empty) add({.op = Op::kProgress, .a = mark});  // a turn that took nothing ends the loop
      add({.op = Op::kJump, .a = loop});
      aim(loop, body, here());
      return {};
    }
    std::vector<std::pair<uint32_t, uint32_t>> exits;
    for (uint32_t i = node.min; i < node.max; ++i) {
      uint32_t s = split();
      exits.emplace_back(s, here());
      SB_OK(emit(inner));
    }
    for (auto [s, body] : exits) aim(s, body, here());
    return {};
  }

  std::string_view pattern_;
  size_t at_ = 0, n_nodes_ = 0;
  bool folds_ = false;
  Regex out_;
};

Result<Regex> Regex::compile(std::string_view pattern) { return RegexCompiler(pattern).compile(); }

}  // namespace sb
