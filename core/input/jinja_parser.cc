#include <algorithm>
#include <cstdlib>

#include "input/jinja.h"

namespace sb::jinja {
namespace {

// Binding strength, weakest first; `not` stands between kAnd and the comparisons.
enum Level : int { kOrLevel = 1, kAndLevel, kNotLevel, kCompareLevel, kAddLevel, kJoinLevel, kMultiplyLevel, kPowerLevel };

struct Operator {
  const char* text;
  Op op;
  int level;
};
constexpr Operator kOperators[] = {
    {"or", Op::kOr, kOrLevel},
    {"and", Op::kAnd, kAndLevel},
    {"==", Op::kEqual, kCompareLevel},
    {"!=", Op::kUnequal, kCompareLevel},
    {"<", Op::kLess, kCompareLevel},
    {"<=", Op::kLessEqual, kCompareLevel},
    {">", Op::kGreater, kCompareLevel},
    {">=", Op::kGreaterEqual, kCompareLevel},
    {"in", Op::kIn, kCompareLevel},
    {"+", Op::kAdd, kAddLevel},
    {"-", Op::kSubtract, kAddLevel},
    {"~", Op::kJoin, kJoinLevel},
    {"*", Op::kMultiply, kMultiplyLevel},
    {"/", Op::kDivide, kMultiplyLevel},
    {"//", Op::kFloor, kMultiplyLevel},
    {"%", Op::kModulo, kMultiplyLevel},
    {"**", Op::kPower, kPowerLevel},
};

class Parser {
 public:
  Parser(const std::vector<Token>& tokens, Failure& failure) : tokens_(tokens), failure_(failure) {}

  Program run() {
    program_.root = block({});
    if (!failure_.happened && token().kind != TokenKind::kEnd) fail("unexpected {% " + token().text + " %}");
    return std::move(program_);
  }

 private:
  using Kids = std::vector<int32_t>;

  // ---- tokens ----
  // After a failure every token reads as the end, so that all loops stop.
  const Token& token() const { return failure_.happened ? tokens_.back() : tokens_[at_]; }
  const Token& ahead() const { return failure_.happened ? tokens_.back() : tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool is(TokenKind kind) const { return token().kind == kind; }
  bool is_sign(std::string_view s) const { return is(TokenKind::kOperator) && token().text == s; }
  bool is_name(std::string_view s) const { return is(TokenKind::kName) && token().text == s; }
  bool take_sign(std::string_view s) {
    if (!is_sign(s)) return false;
    next();
    return true;
  }
  bool take_name(std::string_view s) {
    if (!is_name(s)) return false;
    next();
    return true;
  }
  int32_t fail(std::string why) {
    failure_.set(tokens_[at_].line, std::move(why));
    return -1;
  }
  void expect_sign(const char* s) {
    if (!take_sign(s)) fail(std::string("expected ") + s + found());
  }
  void expect(TokenKind kind, const char* what) {
    if (is(kind)) return next();
    fail(std::string("expected ") + what + found());
  }
  std::string found() const {
    switch (token().kind) {
      case TokenKind::kEnd:
        return ", found the end";
      case TokenKind::kBlockEnd:
        return ", found %}";
      case TokenKind::kOutputEnd:
        return ", found }}";
      default:
        return ", found " + token().text.substr(0, 40);
    }
  }
  std::string take_any_name() {
    if (!is(TokenKind::kName)) {
      fail("expected a name" + found());
      return "";
    }
    std::string name = token().text;
    next();
    return name;
  }

  // ---- nodes ----
  int32_t add(Node n, const Kids& kids = {}) {
    if (n.line == 0) n.line = tokens_[at_].line;
    for (int32_t k : n.kid) {
      if (k >= 0) n.height = std::max(n.height, program_.nodes[size_t(k)].height + 1);
    }
    n.list = uint32_t(program_.lists.size());
    n.n_list = uint32_t(kids.size());
    program_.lists.insert(program_.lists.end(), kids.begin(), kids.end());
    bool lists_nodes = n.op != Op::kFor && n.op != Op::kSet && n.op != Op::kSetBlock && n.op != Op::kMacro;
    for (size_t i = 0; lists_nodes && i < kids.size(); ++i) {
      if (kids[i] >= 0) n.height = std::max(n.height, program_.nodes[size_t(kids[i])].height + 1);
    }
    if (n.height > kMaxNodeDepth) fail("nested too deeply");
    program_.nodes.push_back(n);
    return int32_t(program_.nodes.size() - 1);
  }
  int32_t make(Op op, int32_t a = -1, int32_t b = -1, int32_t c = -1, int32_t d = -1, int32_t id = -1) {
    Node n;
    n.op = op;
    n.id = id;
    n.kid = {a, b, c, d};
    return add(n);
  }
  int32_t make_list(Op op, const Kids& kids, int32_t a = -1, int32_t b = -1, int32_t c = -1, int32_t d = -1, int32_t id = -1) {
    Node n;
    n.op = op;
    n.id = id;
    n.kid = {a, b, c, d};
    return add(n, kids);
  }
  int32_t name_id(const std::string& name) {
    auto it = std::find(program_.names.begin(), program_.names.end(), name);
    if (it == program_.names.end()) it = program_.names.insert(it, name);
    return int32_t(it - program_.names.begin());
  }
  int32_t constant(Op op, Value v) {
    program_.constants.push_back(std::move(v));
    return make(op, -1, -1, -1, -1, int32_t(program_.constants.size() - 1));
  }
  int32_t text_constant(Op op, const std::string& bytes) {
    Value v;
    v.kind = Kind::kText;
    v.shared = std::make_shared<const Text>(bytes, nullptr);
    return constant(op, std::move(v));
  }
  // Guards the recursion of the parser itself.
  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++parser.depth_ > kMaxParseDepth) parser.fail("nested too deeply");
    }
    ~Deeper() { --parser.depth_; }
    Parser& parser;
  };

  // ---- statements ----

  // Statements up to {% and one of `ends`, whose name is then the current token (or up to the end of the source, when none is asked for).
  int32_t block(std::initializer_list<std::string_view> ends) {
    Deeper deeper(*this);
    Kids kids;
    int32_t opened = token().line;
    for (;;) {
      if (is(TokenKind::kEnd)) {
        if (ends.size() && !failure_.happened) failure_.set(opened, "{% " + std::string(*(ends.end() - 1)) + " %} is missing");
        break;
      }
      if (is(TokenKind::kData)) {
        kids.push_back(text_constant(Op::kData, token().text));
        next();
      } else if (is(TokenKind::kOutputBegin)) {
        next();
        kids.push_back(make(Op::kOutput, tuple()));
        expect(TokenKind::kOutputEnd, "}}");
      } else {
        expect(TokenKind::kBlockBegin, "a tag");
        if (std::find(ends.begin(), ends.end(), token().text) != ends.end() && is(TokenKind::kName)) break;
        if (is(TokenKind::kName) && ends.size() == 0 && token().text.starts_with("end")) break;
        int32_t statement = this->statement();
        if (statement >= 0) kids.push_back(statement);
      }
    }
    return make_list(Op::kBlock, kids);
  }
  void end_tag() { expect(TokenKind::kBlockEnd, "%}"); }
  // The rest of {% endfor %} and the like.
  void close_block() {
    next();
    end_tag();
  }

  int32_t statement() {
    std::string name = take_any_name();
    if (name == "if") return if_statement();
    if (name == "for") return for_statement();
    if (name == "set") return set_statement();
    if (name == "macro") return macro_statement();
    if (name == "call") return call_statement();
    if (name == "filter") return filter_statement();
    if (name == "generation") {  // marks the assistant's words for training; prints them
      end_tag();
      int32_t body = block({"endgeneration"});
      close_block();
      return body;
    }
    if (name == "break" || name == "continue") {
      if (n_loops_ == 0) return fail("{% " + name + " %} outside a loop");
      end_tag();
      return make(name == "break" ? Op::kBreak : Op::kContinue);
    }
    return fail("there is no statement {% " + name + " %} here");
  }

  int32_t if_statement() {
    Kids kids = {expression()};
    end_tag();
    kids.push_back(block({"elif", "else", "endif"}));
    int32_t otherwise = -1;
    while (!failure_.happened) {
      if (take_name("elif")) {
        kids.push_back(expression());
        end_tag();
        kids.push_back(block({"elif", "else", "endif"}));
      } else if (take_name("else")) {
        end_tag();
        otherwise = block({"endif"});
      } else {
        close_block();
        break;
      }
    }
    return make_list(Op::kIf, kids, otherwise);
  }

  // `a`, `a, b` or `(a, b)`: names to bind.
  Kids targets() {
    bool has_bracket = take_sign("(");
    Kids names;
    do {
      if (!names.empty() && !is(TokenKind::kName)) break;
      names.push_back(name_id(take_any_name()));
    } while (take_sign(","));
    if (has_bracket) expect_sign(")");
    return names;
  }

  int32_t for_statement() {
    Kids names = targets();
    if (!take_name("in")) return fail("expected in" + found());
    int32_t iterable = binary(kOrLevel);
    if (is_sign(",")) {
      Kids items = {iterable};
      while (take_sign(",") && !is(TokenKind::kBlockEnd)) items.push_back(binary(kOrLevel));
      iterable = make_list(Op::kList, items);
    }
    int32_t condition = take_name("if") ? expression() : -1;
    if (is_name("recursive")) return fail("recursive loops are not known here");
    end_tag();
    ++n_loops_;
    int32_t body = block({"else", "endfor"});
    --n_loops_;
    int32_t otherwise = -1;
    if (take_name("else")) {
      end_tag();
      otherwise = block({"endfor"});
    }
    close_block();
    return make_list(Op::kFor, names, iterable, condition, body, otherwise);
  }

  int32_t set_statement() {
    Kids names = targets();
    int32_t attribute = -1;
    if (names.size() == 1 && take_sign(".")) attribute = name_id(take_any_name());
    if (take_sign("=")) {
      int32_t value = tuple();
      end_tag();
      return make_list(Op::kSet, names, value, -1, -1, -1, attribute);
    }
    if (names.size() != 1 || attribute >= 0) return fail("expected =" + found());
    int32_t filters = is_sign("|") ? postfix_filters(make(Op::kCaptured)) : -1;
    end_tag();
    int32_t body = block({"endset"});
    close_block();
    return make_list(Op::kSetBlock, names, body, filters);
  }

  // (a, b=1) of a macro: name ids and default nodes in turn.
  Kids parameters() {
    Kids out;
    expect_sign("(");
    while (!failure_.happened && !is_sign(")")) {
      int32_t name = name_id(take_any_name());
      for (size_t i = 0; i < out.size(); i += 2) {
        if (out[i] == name) fail("a parameter is named twice");
      }
      out.push_back(name);
      out.push_back(take_sign("=") ? expression() : -1);
      if (!take_sign(",")) break;
    }
    expect_sign(")");
    return out;
  }

  int32_t macro_statement() {
    int32_t name = name_id(take_any_name());
    Kids params = parameters();
    end_tag();
    int n_loops = std::exchange(n_loops_, 0);
    int32_t body = block({"endmacro"});
    n_loops_ = n_loops;
    next();
    if (is(TokenKind::kName)) next();  // {% endmacro name %}
    end_tag();
    return make_list(Op::kMacro, params, body, -1, -1, -1, name);
  }

  int32_t call_statement() {
    Kids params;
    if (is_sign("(")) params = parameters();
    int32_t call = expression();
    if (!failure_.happened && program_.nodes[size_t(call)].op != Op::kCall) return fail("{% call %} needs a call");
    end_tag();
    int n_loops = std::exchange(n_loops_, 0);
    int32_t body = block({"endcall"});
    n_loops_ = n_loops;
    close_block();
    int32_t caller = make_list(Op::kMacro, params, body, -1, -1, -1, name_id("caller"));
    return make(Op::kCallBlock, call, caller);
  }

  int32_t filter_statement() {
    int32_t filters = postfix_filters(filter(make(Op::kCaptured)));
    end_tag();
    int32_t body = block({"endfilter"});
    close_block();
    return make(Op::kFilterBlock, body, filters);
  }

  // ---- expressions ----

  int32_t tuple() {
    int32_t first = expression();
    if (!is_sign(",")) return first;
    Kids items = {first};
    while (take_sign(",") && !is(TokenKind::kBlockEnd) && !is(TokenKind::kOutputEnd) && !is_sign(")")) items.push_back(expression());
    return make_list(Op::kList, items);
  }

  int32_t expression() {
    Deeper deeper(*this);
    if (failure_.happened) return -1;
    int32_t value = binary(kOrLevel);
    while (take_name("if")) {
      int32_t condition = binary(kOrLevel);
      int32_t otherwise = take_name("else") ? expression() : -1;
      value = make(Op::kTernary, condition, value, otherwise);
    }
    return value;
  }

  // Precedence climbing: everything that binds at least as tightly as `level`.
  int32_t binary(int level) {
    Deeper deeper(*this);
    if (failure_.happened) return -1;
    int32_t left;
    if (level <= kNotLevel && take_name("not")) {
      left = make(Op::kNot, binary(kNotLevel));
    } else {
      left = unary();
    }
    int32_t last_compared = -1;  // a < b < c is a < b and b < c
    while (!failure_.happened) {
      bool is_not_in = is_name("not") && ahead().kind == TokenKind::kName && ahead().text == "in";
      const Operator* found = nullptr;
      if (is(TokenKind::kOperator) || is(TokenKind::kName)) {
        for (const Operator& o : kOperators) {
          if (token().text == o.text || (is_not_in && o.op == Op::kIn)) found = &o;
        }
      }
      if (!found || found->level < level) break;
      next();
      if (is_not_in) next();
      int32_t right = binary(found->level + 1);
      Op op = is_not_in ? Op::kNotIn : found->op;
      if (found->level == kCompareLevel && last_compared >= 0) {
        left = make(Op::kAnd, left, make(op, last_compared, right));
      } else {
        left = make(op, left, right);
      }
      last_compared = found->level == kCompareLevel ? right : -1;
    }
    return left;
  }

  int32_t unary() {
    std::string signs;
    while (is_sign("-") || is_sign("+")) {
      signs += token().text;
      next();
    }
    int32_t value = postfix(primary());
    for (size_t i = signs.size(); i-- > 0;) value = make(signs[i] == '-' ? Op::kMinus : Op::kPlus, value);
    return postfix_filters(value);
  }

  int32_t primary() {
    if (failure_.happened) return -1;
    std::string word = token().text;
    switch (token().kind) {
      case TokenKind::kName:
        next();
        if (word == "true" || word == "True") return constant(Op::kConstant, boolean(true));
        if (word == "false" || word == "False") return constant(Op::kConstant, boolean(false));
        if (word == "none" || word == "None") return constant(Op::kConstant, none());
        return make(Op::kName, -1, -1, -1, -1, name_id(word));
      case TokenKind::kText:
        next();
        while (is(TokenKind::kText)) {
          word += token().text;
          next();
        }
        return text_constant(Op::kConstant, word);
      case TokenKind::kInt: {
        if (word.size() > 18) return fail("the number " + word.substr(0, 40) + " is too large");
        next();
        return constant(Op::kConstant, whole(std::strtoll(word.c_str(), nullptr, 10)));
      }
      case TokenKind::kFloat:
        next();
        return constant(Op::kConstant, real(std::strtod(word.c_str(), nullptr)));
      default:
        break;
    }
    if (take_sign("(")) {
      if (take_sign(")")) return make_list(Op::kList, {});
      int32_t value = tuple();
      expect_sign(")");
      return value;
    }
    if (take_sign("[")) {
      Kids items;
      while (!failure_.happened && !is_sign("]")) {
        items.push_back(expression());
        if (!take_sign(",")) break;
      }
      expect_sign("]");
      return make_list(Op::kList, items);
    }
    if (take_sign("{")) {
      Kids items;
      while (!failure_.happened && !is_sign("}")) {
        items.push_back(expression());
        expect_sign(":");
        items.push_back(expression());
        if (!take_sign(",")) break;
      }
      expect_sign("}");
      return make_list(Op::kDict, items);
    }
    return fail("expected a value" + found());
  }

  int32_t postfix(int32_t value) {
    while (!failure_.happened) {
      if (take_sign(".")) {
        if (is(TokenKind::kInt)) {
          value = make(Op::kItem, value, primary());
        } else {
          value = make(Op::kAttribute, value, -1, -1, -1, name_id(take_any_name()));
        }
      } else if (take_sign("[")) {
        value = subscript(value);
      } else if (is_sign("(")) {
        value = make_list(Op::kCall, arguments(), value);
      } else {
        break;
      }
    }
    return value;
  }

  int32_t subscript(int32_t object) {
    std::array<int32_t, 3> part = {-1, -1, -1};
    size_t n = 0;
    bool is_slice = false;
    while (!failure_.happened && !is_sign("]")) {
      if (take_sign(":")) {
        is_slice = true;
        if (++n > 2) return fail("a slice has three parts at most");
      } else {
        if (part[n] >= 0) return fail("expected ]" + found());
        part[n] = expression();
      }
    }
    expect_sign("]");
    if (is_slice) return make(Op::kSlice, object, part[0], part[1], part[2]);
    if (part[0] < 0) return fail("[] is empty");
    return make(Op::kItem, object, part[0]);
  }

  Kids arguments() {
    Kids out;
    bool has_keyword = false;
    expect_sign("(");
    while (!failure_.happened && !is_sign(")")) {
      if (take_sign("**")) {
        out.push_back(make(Op::kSpreadKeywords, expression()));
        has_keyword = true;
      } else if (take_sign("*")) {
        out.push_back(make(Op::kSpread, expression()));
      } else if (is(TokenKind::kName) && ahead().kind == TokenKind::kOperator && ahead().text == "=") {
        int32_t name = name_id(take_any_name());
        next();
        out.push_back(make(Op::kKeyword, expression(), -1, -1, -1, name));
        has_keyword = true;
      } else {
        if (has_keyword) fail("an argument without a name follows one with a name");
        out.push_back(expression());
      }
      if (!take_sign(",")) break;
    }
    expect_sign(")");
    return out;
  }

  // name or name(arguments), after a |.
  int32_t filter(int32_t value) {
    std::string name = take_any_name();
    int32_t id = find_filter(name);
    if (id < 0 && !failure_.happened) return fail("there is no filter " + name + " here");
    Kids args;
    if (is_sign("(")) args = arguments();
    return make_list(Op::kFilter, args, value, -1, -1, -1, id);
  }

  int32_t test(int32_t value) {
    bool is_negated = take_name("not");
    std::string name = is_sign("==") ? "eq" : take_any_name();
    if (is_sign("==")) next();
    int32_t id = find_test(name);
    if (failure_.happened) return -1;
    if (id < 0) return fail("there is no test " + name + " here");
    Kids args;
    if (is_sign("(")) {
      args = arguments();
    } else if (test_at(id).takes_argument) {
      args.push_back(postfix(primary()));
    }
    int32_t result = make_list(Op::kTest, args, value, -1, -1, -1, id);
    return is_negated ? make(Op::kNot, result) : result;
  }

  int32_t postfix_filters(int32_t value) {
    while (!failure_.happened) {
      if (take_sign("|")) {
        value = filter(value);
      } else if (take_name("is")) {
        value = test(value);
      } else if (is_sign("(")) {
        value = make_list(Op::kCall, arguments(), value);
      } else if (is_sign(".") || is_sign("[")) {  // Jinja2 wants brackets around the filter here; @huggingface/jinja does not know it
        value = postfix(value);
      } else {
        break;
      }
    }
    return value;
  }

  const std::vector<Token>& tokens_;
  Failure& failure_;
  Program program_;
  size_t at_ = 0;
  int depth_ = 0;
  int n_loops_ = 0;
};

}  // namespace

Program parse(const std::vector<Token>& tokens, Failure& failure) { return Parser(tokens, failure).run(); }

}  // namespace sb::jinja
