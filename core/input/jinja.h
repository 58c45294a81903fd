// The inside of ChatTemplate: a template is tokens, then a flat pool of nodes, then a walk over them. It computes as Jinja2 does under
// transformers (trim_blocks, lstrip_blocks, loop controls, json.dumps for tojson). Where that ends in an error or in Python's notation,
// @huggingface/jinja decides: an attribute of nothing is nothing, none prints as nothing, lists and dictionaries print as JSON.
//
// Nothing here throws or returns early through every layer: the first failure is kept, everything after it is harmless, and loops look.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace sb::jinja {

// What a hostile template is held to. Real ones stay below a hundredth of each.
inline constexpr int kMaxParseDepth = 100;               // brackets and blocks inside each other
inline constexpr int kMaxNodeDepth = 150;                // height of the tree: a chain of 150 additions, say
inline constexpr int kMaxEvalDepth = 250;                // the same at run time, through macro calls
inline constexpr int kMaxValueDepth = 100;               // lists in lists, in the context or made by the template
inline constexpr int64_t kMaxRange = 100'000;            // as Jinja2's sandbox
inline constexpr uint64_t kMaxSteps = 50'000'000;        // nodes evaluated, items copied, and text made (16 bytes a step)
inline constexpr size_t kMaxMemory = size_t{256} << 20;  // bytes of text alive at once, and of all lists and dictionaries made
inline constexpr size_t kMaxOutput = size_t{64} << 20;   // bytes

/// The first thing that went wrong.
struct Failure {
  bool happened = false;
  bool is_raised = false;  // by raise_exception
  int32_t line = 0;
  std::string why;

  void set(int32_t at, std::string text) {
    if (happened) return;
    happened = true;
    line = at;
    why = std::move(text);
  }
};

// ---- tokens ----

enum class TokenKind : uint8_t { kEnd, kData, kBlockBegin, kBlockEnd, kOutputBegin, kOutputEnd, kName, kText, kInt, kFloat, kOperator };

struct Token {
  TokenKind kind;
  int32_t line;
  std::string text;
};

/// Splits `source`, with whitespace control applied as Jinja2 does under trim_blocks and lstrip_blocks. Ends with kEnd.
std::vector<Token> tokenize(std::string_view source, Failure& failure);

// ---- values ----

enum class Kind : uint8_t { kUndefined, kNone, kBool, kInt, kFloat, kText, kList, kDict, kNamespace, kLoop, kMacro, kFunction };

/// Text that counts itself in its render's books while it lives.
struct Text {
  std::string bytes;
  size_t* live;
  Text(std::string s, size_t* books) : bytes(std::move(s)), live(books) {
    if (live) *live += bytes.size();
  }
  Text(const Text&) = delete;
  ~Text() {
    if (live) *live -= bytes.size();
  }
};

struct Object;

struct Value {
  Kind kind = Kind::kUndefined;
  union {
    bool flag;
    int64_t whole = 0;
    double real;
    Object* object;  // owned by the render's pool, so that a namespace may hold itself
  };
  std::shared_ptr<const Text> shared;

  const std::string& text() const { return shared->bytes; }
  bool is(Kind k) const { return kind == k; }
  bool is_number() const { return kind == Kind::kInt || kind == Kind::kFloat || kind == Kind::kBool; }
  bool is_map() const { return kind == Kind::kDict || kind == Kind::kNamespace; }
  double number() const { return kind == Kind::kFloat ? real : kind == Kind::kBool ? double(flag) : double(whole); }
  int64_t integer() const { return kind == Kind::kBool ? int64_t(flag) : whole; }
};

Value none();
Value boolean(bool b);
Value whole(int64_t n);
Value real(double d);

struct Scope {
  Scope* parent = nullptr;  // null: the template's own level
  std::vector<int32_t> names;
  std::vector<Value> values;
};

struct Object {
  std::vector<Value> keys;   // kDict, kNamespace: texts, in order of insertion
  std::vector<Value> items;  // kList's items, the keys' values, or what a kLoop goes over
  int64_t index = 0;         // kLoop: from 0
  int64_t loop_depth = 0;    // kLoop: from 1
  int32_t node = -1;         // kMacro
  Scope* scope = nullptr;    // kMacro: where it was defined

  const Value* find(std::string_view key) const {
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].text() == key) return &items[i];
    }
    return nullptr;
  }
};

// ---- nodes ----

// clang-format off
enum class Op : uint8_t {
  kBlock,      // list: statements
  kData,       // id: constant
  kOutput,     // 0: expression
  kIf,         // list: condition, body, condition, body …; 0: else
  kFor,        // list: names; 0: iterable, 1: condition, 2: body, 3: else
  kSet,        // list: names, or id: attribute of name in list; 0: value
  kSetBlock,   // list: name; 0: body, 1: filter chain over kCaptured
  kMacro,      // id: name; list: name constant id, default node …; 0: body
  kCallBlock,  // 0: call, 1: kMacro that is the caller
  kFilterBlock,// 0: body, 1: filter chain over kCaptured
  kBreak, kContinue,
  kConstant,   // id: constant
  kName,       // id: name
  kCaptured,   // the text that a block has just written
  kList, kDict,// list: items; key, value …
  kAttribute,  // 0: object, id: name
  kItem,       // 0: object, 1: key
  kSlice,      // 0: object, 1: from, 2: to, 3: step
  kCall,       // 0: callee, list: arguments
  kKeyword,    // id: name, 0: value (as an argument)
  kSpread, kSpreadKeywords,  // 0: value (as an argument)
  kFilter,     // 0: value, id: filter, list: arguments
  kTest,       // 0: value, id: test, list: arguments
  kTernary,    // 0: condition, 1: then, 2: else
  kAnd, kOr, kNot, kMinus, kPlus,
  kAdd, kSubtract, kMultiply, kDivide, kFloor, kModulo, kPower, kJoin,
  kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn,
};
// clang-format on

struct Node {
  Op op = Op::kBlock;
  int32_t line = 0;
  int32_t height = 1;
  int32_t id = -1;
  std::array<int32_t, 4> kid = {-1, -1, -1, -1};
  uint32_t list = 0, n_list = 0;  // in Program::lists
};

struct Program {
  std::vector<Node> nodes;
  std::vector<int32_t> lists;
  std::vector<std::string> names;
  std::vector<Value> constants;
  int32_t root = -1;
};

Program parse(const std::vector<Token>& tokens, Failure& failure);

// ---- evaluation ----

bool is_true(const Value& v);

struct Argument {
  std::string_view name;
  Value value;
};

/// A call's arguments, in order; a named one is found by its name or, when it was given without, by its place.
struct Arguments {
  std::vector<Value> places;
  std::vector<Argument> named;

  const Value* find(size_t place, std::string_view name) const {
    if (place < places.size()) return &places[place];
    for (const Argument& a : named) {
      if (a.name == name) return &a.value;
    }
    return nullptr;
  }
};

// An argument of the kind wanted, else what stands for it.
inline int64_t whole_or(const Value* v, int64_t otherwise) {
  return v && (v->is(Kind::kInt) || v->is(Kind::kBool)) ? v->integer() : otherwise;
}
inline bool flag_or(const Value* v, bool otherwise) { return v && !v->is(Kind::kUndefined) ? is_true(*v) : otherwise; }
inline const std::string* text_or_null(const Value* v) { return v && v->is(Kind::kText) ? &v->text() : nullptr; }

class Interpreter {
 public:
  Interpreter(const Program& program, const OrderedJson& context);
  std::string run();
  Failure failure;

  // What filters, tests and methods need.
  Value fail(std::string why);
  /// Counts work; false when the template has used up what it may, or has failed before.
  bool spend(uint64_t steps);
  Value text(std::string bytes);
  Value list(std::vector<Value> items);
  Value dict(std::vector<Value> keys, std::vector<Value> items, Kind kind = Kind::kDict);
  Value from_json(const OrderedJson& json, int depth = 0);
  /// What a loop over `v` goes over; fails when it is none of list, dictionary, text, undefined.
  std::vector<Value> items_of(const Value& v);
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value call_macro(const Value& macro, Arguments& arguments, const Value* caller);
  const OrderedJson& context() const { return context_; }

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  Flow run_node(int32_t id);
  Flow run_block(const Node& node);
  Flow run_if(const Node& node);
  void run_for(const Node& node);
  void run_set(const Node& node);
  std::string capture(int32_t block);
  void write(const Value& v);

  Value evaluate(int32_t id);
  Value evaluate_node(const Node& node);
  Value evaluate_call(const Node& node, const Value* caller);
  Value evaluate_slice(const Node& node);
  Value evaluate_compare(const Node& node);
  Value evaluate_arithmetic(const Node& node);
  Value evaluate_in(const Value& item, const Value& container);
  Value evaluate_dict(const Node& node);
  void read_arguments(const Node& node, Arguments& into);
  Value macro(int32_t id);

  const Value* lookup(int32_t name);
  void assign(int32_t name, Value value);
  bool unpack(const Node& node, const Value& value);
  void hold(size_t n_bytes);
  Object* make_object(size_t n_values);
  Scope* make_scope(Scope* parent);
  const Node& node(int32_t id) const { return program_.nodes[size_t(id)]; }
  int32_t listed(const Node& n, uint32_t i) const { return program_.lists[n.list + i]; }

  const Program& program_;
  const OrderedJson& context_;
  size_t live_text_ = 0;  // before all values, which count themselves down at their end
  size_t held_ = 0;       // by objects and scopes
  std::vector<std::unique_ptr<Object>> objects_;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Value> globals_;     // by name; from the context, the built-in functions, or set at the template's own level
  std::vector<uint8_t> is_known_;  // by name: globals_ holds it
  Scope* scope_ = nullptr;
  Value captured_;
  std::string* out_ = nullptr;
  uint64_t steps_ = 0;
  int depth_ = 0;
  int64_t loop_depth_ = 0;
  int32_t line_ = 1;
};

bool is_equal(Interpreter& run, const Value& a, const Value& b, int depth = 0);
/// Below, equal, above: -1, 0, 1; fails where Python has no order.
int compare(Interpreter& run, const Value& a, const Value& b, bool ignore_case, int depth = 0);
void sort(Interpreter& run, std::vector<Value>& keys, std::vector<Value>& values, bool ignore_case, bool is_reverse);
const char* kind_name(const Value& v);

struct JsonStyle {
  int64_t indent = -1;  // below 0: one line
  bool ascii = false;
  bool is_sorted = false;
  std::string between = ", ";
  std::string colon = ": ";
};
/// As Python's json.dumps, which is what transformers gives templates: no HTML escapes, keys in their order.
void write_json(Interpreter& run, const Value& v, const JsonStyle& style, std::string& out, int depth = 0);
/// How a value is printed: nothing for none, True, JSON for lists and dictionaries.
std::string shown(Interpreter& run, const Value& v);

// ---- text ----

/// Bytes of the UTF-8 character that starts at `at`; 1 for a byte that starts none.
size_t character_size(std::string_view text, size_t at);
size_t count_characters(std::string_view text);
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_title(std::string_view text);
std::string to_capitalized(std::string_view text);
/// Without the characters of `chars` (null: whitespace, as Python's str.strip) at the ends asked for.
std::string_view strip(std::string_view text, bool left, bool right, const std::string* chars = nullptr);
std::string replace_all(Interpreter& run, std::string_view text, std::string_view from, std::string_view to, int64_t count);
/// "%d %b %Y" and its kin for {year, month 1-12, day, hour, minute, second}.
std::string format_date(const std::array<int, 6>& date, std::string_view format);

// ---- filters, tests, methods, functions: tables ----

struct Filter {
  const char* name;
  Value (*run)(Interpreter&, const Value&, const Arguments&);
};
struct Test {
  const char* name;
  bool takes_argument;
  bool (*run)(Interpreter&, const Value&, const Value& argument);
};
/// Index, or -1.
int32_t find_filter(std::string_view name);
int32_t find_test(std::string_view name);
const Filter& filter_at(int32_t index);
const Test& test_at(int32_t index);

/// A method of text or dictionaries. False when `object` has none of that name.
bool call_method(Interpreter& run, const Value& object, std::string_view name, const Arguments& arguments, Value& result);
/// The built-in function of that name (range, namespace, dict, raise_exception, strftime_now), or undefined.
Value function(Interpreter& run, std::string_view name);
Value call_function(Interpreter& run, const Value& function, const Arguments& arguments);

}  // namespace sb::jinja
