#include <algorithm>
#include <cmath>
#include <utility>

#include "input/jinja.h"

namespace sb::jinja {

Interpreter::Interpreter(const Program& program, const OrderedJson& context)
    : program_(program), context_(context), globals_(program.names.size()), is_known_(program.names.size()) {}

std::string Interpreter::run() {
  std::string out;
  if (program_.root < 0) return out;
  scope_ = make_scope(nullptr);
  out_ = &out;
  run_node(program_.root);
  out_ = nullptr;
  return out;
}

// ---- books ----

Value Interpreter::fail(std::string why) {
  failure.set(line_, std::move(why));
  return {};
}

bool Interpreter::spend(uint64_t steps) {
  steps_ += steps;
  if (steps_ > kMaxSteps) fail("it runs for too long");
  return !failure.happened;
}

Value Interpreter::text(std::string bytes) {
  Value v;
  if (!spend(1 + bytes.size() / 16)) return v;
  if (bytes.size() > kMaxOutput) return fail("a text grows past " + std::to_string(kMaxOutput) + " bytes");
  if (live_text_ + held_ + bytes.size() > kMaxMemory) return fail("it needs too much memory");
  v.kind = Kind::kText;
  v.shared = std::make_shared<const Text>(std::move(bytes), &live_text_);
  return v;
}

void Interpreter::hold(size_t n_bytes) {
  held_ += n_bytes;
  if (live_text_ + held_ > kMaxMemory) fail("it needs too much memory");
}

Object* Interpreter::make_object(size_t n_values) {
  hold(sizeof(Object) + n_values * sizeof(Value));
  return objects_.emplace_back(std::make_unique<Object>()).get();
}

Scope* Interpreter::make_scope(Scope* parent) {
  hold(sizeof(Scope) + 4 * sizeof(Value));
  Scope* scope = scopes_.emplace_back(std::make_unique<Scope>()).get();
  scope->parent = parent;
  return scope;
}

Value Interpreter::list(std::vector<Value> items) {
  Value v;
  if (!spend(items.size())) return v;
  v.kind = Kind::kList;
  v.object = make_object(items.size());
  v.object->items = std::move(items);
  return v;
}

Value Interpreter::dict(std::vector<Value> keys, std::vector<Value> items, Kind kind) {
  Value v;
  if (!spend(items.size())) return v;
  v.kind = kind;
  v.object = make_object(2 * items.size());
  v.object->keys = std::move(keys);
  v.object->items = std::move(items);
  return v;
}

Value Interpreter::from_json(const OrderedJson& json, int depth) {
  if (depth > kMaxValueDepth) return fail("the messages or tools are nested too deeply");
  if (!spend(1)) return {};
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return boolean(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return whole(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned: {
      uint64_t n = json.get<uint64_t>();
      return n <= uint64_t(INT64_MAX) ? whole(int64_t(n)) : real(double(n));
    }
    case OrderedJson::value_t::number_float:
      return real(json.get<double>());
    case OrderedJson::value_t::string:
      return text(json.get_ref<const std::string&>());
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      for (const OrderedJson& item : json) items.push_back(from_json(item, depth + 1));
      return list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      std::vector<Value> keys, items;
      for (auto it = json.begin(); it != json.end(); ++it) {
        Value key = text(it.key());
        if (failure.happened) return {};
        keys.push_back(std::move(key));
        items.push_back(from_json(*it, depth + 1));
      }
      return dict(std::move(keys), std::move(items));
    }
    default:
      return none();
  }
}

// ---- names ----

const Value* Interpreter::lookup(int32_t name) {
  for (Scope* s = scope_; s; s = s->parent) {
    for (size_t i = s->names.size(); i-- > 0;) {
      if (s->names[i] == name) return &s->values[i];
    }
  }
  size_t at = size_t(name);
  if (!is_known_[at]) {  // the context is read only as far as the template asks for it
    is_known_[at] = 1;
    const OrderedJson* given = json_find(context_, program_.names[at]);
    globals_[at] = given ? from_json(*given) : function(*this, program_.names[at]);
  }
  return &globals_[at];
}

void Interpreter::assign(int32_t name, Value value) {
  if (!scope_->parent) {  // the template's own level
    globals_[size_t(name)] = std::move(value);
    is_known_[size_t(name)] = 1;
    return;
  }
  for (size_t i = 0; i < scope_->names.size(); ++i) {
    if (scope_->names[i] == name) {
      scope_->values[i] = std::move(value);
      return;
    }
  }
  scope_->names.push_back(name);
  scope_->values.push_back(std::move(value));
}

bool Interpreter::unpack(const Node& n, const Value& value) {
  if (n.n_list == 1) {
    assign(listed(n, 0), value);
    return true;
  }
  std::vector<Value> items = items_of(value);
  if (!failure.happened && items.size() != n.n_list) {
    fail(std::to_string(n.n_list) + " names for " + std::to_string(items.size()) + " values");
  }
  if (failure.happened) return false;
  for (uint32_t i = 0; i < n.n_list; ++i) assign(listed(n, i), items[i]);
  return true;
}

// ---- statements ----

void Interpreter::write(const Value& v) {
  if (failure.happened) return;
  if (v.is(Kind::kText)) {
    *out_ += v.text();
  } else {
    *out_ += shown(*this, v);
  }
  if (out_->size() > kMaxOutput) fail("its output grows past " + std::to_string(kMaxOutput) + " bytes");
}

std::string Interpreter::capture(int32_t block) {
  std::string text;
  std::string* outer = std::exchange(out_, &text);
  run_node(block);
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::run_block(const Node& n) {
  for (uint32_t i = 0; i < n.n_list && !failure.happened; ++i) {
    Flow flow = run_node(listed(n, i));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_if(const Node& n) {
  for (uint32_t i = 0; i + 1 < n.n_list; i += 2) {
    bool holds = is_true(evaluate(listed(n, i)));
    if (failure.happened) return Flow::kNext;
    if (holds) return run_node(listed(n, i + 1));
  }
  return n.kid[0] >= 0 ? run_node(n.kid[0]) : Flow::kNext;
}

void Interpreter::run_for(const Node& n) {
  std::vector<Value> items = items_of(evaluate(n.kid[0]));
  Scope* outer = scope_;
  if (n.kid[1] >= 0) {  // the condition sees the loop's names, but not `loop`
    scope_ = make_scope(outer);
    std::vector<Value> chosen;
    for (const Value& item : items) {
      if (failure.happened || !unpack(n, item)) break;
      if (is_true(evaluate(n.kid[1]))) chosen.push_back(item);
    }
    items = std::move(chosen);
    scope_ = outer;
  }
  if (failure.happened) return;
  if (items.empty()) {
    if (n.kid[3] >= 0) run_node(n.kid[3]);
    return;
  }
  Value loop;
  loop.kind = Kind::kLoop;
  loop.object = make_object(items.size());
  loop.object->loop_depth = ++loop_depth_;
  loop.object->items = std::move(items);
  size_t count = loop.object->items.size();
  static constexpr std::string_view kLoopName = "loop";
  auto found = std::find(program_.names.begin(), program_.names.end(), kLoopName);
  scope_ = make_scope(outer);
  for (size_t i = 0; i < count && !failure.happened; ++i) {
    // What an iteration sets is gone in the next one.
    scope_->names.clear();
    scope_->values.clear();
    loop.object->index = int64_t(i);
    if (found != program_.names.end()) assign(int32_t(found - program_.names.begin()), loop);
    if (!spend(1) || !unpack(n, loop.object->items[i])) break;
    if (run_node(n.kid[2]) == Flow::kBreak) break;
  }
  scope_ = outer;
  --loop_depth_;
  held_ -= count * sizeof(Value);
  loop.object->items = {};
}

void Interpreter::run_set(const Node& n) {
  Value value = evaluate(n.kid[0]);
  if (failure.happened) return;
  if (n.id < 0) return void(unpack(n, value));
  const Value* space = lookup(listed(n, 0));
  if (!space->is(Kind::kNamespace)) {
    return void(fail("cannot set ." + program_.names[size_t(n.id)] + " of " + kind_name(*space) + ", only of a namespace"));
  }
  Object& o = *space->object;
  const std::string& name = program_.names[size_t(n.id)];
  if (const Value* old = o.find(name)) {
    o.items[size_t(old - o.items.data())] = std::move(value);
    return;
  }
  Value key = text(name);
  if (failure.happened) return;
  o.keys.push_back(std::move(key));
  o.items.push_back(std::move(value));
}

Interpreter::Flow Interpreter::run_node(int32_t id) {
  const Node& n = node(id);
  if (!spend(1)) return Flow::kNext;
  if (++depth_ > kMaxEvalDepth) fail("it calls itself too deeply");
  Flow flow = Flow::kNext;
  line_ = n.line;
  switch (failure.happened ? Op::kContinue : n.op) {
    case Op::kBlock:
      flow = run_block(n);
      break;
    case Op::kData:
      write(program_.constants[size_t(n.id)]);
      break;
    case Op::kOutput:
      write(evaluate(n.kid[0]));
      break;
    case Op::kIf:
      flow = run_if(n);
      break;
    case Op::kFor:
      run_for(n);
      break;
    case Op::kSet:
      run_set(n);
      break;
    case Op::kBreak:
      flow = Flow::kBreak;
      break;
    case Op::kContinue:
      flow = Flow::kContinue;
      break;
    case Op::kMacro:
      assign(n.id, macro(id));
      break;
    case Op::kSetBlock:
    case Op::kFilterBlock: {
      bool is_set = n.op == Op::kSetBlock;
      Value body = text(capture(n.kid[0]));
      if (n.kid[1] >= 0) {
        captured_ = std::move(body);
        body = evaluate(n.kid[1]);
      }
      if (is_set) {
        assign(listed(n, 0), std::move(body));
      } else {
        write(body);
      }
      break;
    }
    case Op::kCallBlock: {
      Value caller = macro(n.kid[1]);
      write(evaluate_call(node(n.kid[0]), &caller));
      break;
    }
    default:
      write(evaluate(id));
      break;
  }
  --depth_;
  return flow;
}

// ---- macros and calls ----

Value Interpreter::macro(int32_t id) {
  Value v;
  v.kind = Kind::kMacro;
  v.object = make_object(0);
  v.object->node = id;
  v.object->scope = scope_;
  return v;
}

Value Interpreter::call_macro(const Value& macro, Arguments& arguments, const Value* caller) {
  const Node& n = node(macro.object->node);
  size_t n_parameters = n.n_list / 2;
  if (arguments.places.size() > n_parameters) return fail("macro " + program_.names[size_t(n.id)] + " takes fewer arguments");
  for (const Argument& a : arguments.named) {
    bool is_known = false;
    for (size_t i = 0; i < n_parameters; ++i) {
      is_known = is_known || (program_.names[size_t(listed(n, uint32_t(2 * i)))] == a.name && i >= arguments.places.size());
    }
    if (!is_known) return fail("macro " + program_.names[size_t(n.id)] + " takes no argument " + std::string(a.name));
  }
  // Its names resolve where it was defined, as in Jinja2; @huggingface/jinja would look around its caller.
  Scope* outer = std::exchange(scope_, make_scope(macro.object->scope));
  int64_t loop_depth = std::exchange(loop_depth_, 0);
  for (size_t i = 0; i < n_parameters && !failure.happened; ++i) {
    int32_t name = listed(n, uint32_t(2 * i)), fallback = listed(n, uint32_t(2 * i + 1));
    const Value* given = arguments.find(i, program_.names[size_t(name)]);
    assign(name, given ? *given : fallback >= 0 ? evaluate(fallback) : Value{});
  }
  auto found = std::find(program_.names.begin(), program_.names.end(), std::string_view("caller"));
  if (found != program_.names.end() && n.id != int32_t(found - program_.names.begin())) {
    assign(int32_t(found - program_.names.begin()), caller ? *caller : Value{});
  }
  Value result = failure.happened ? Value{} : text(capture(n.kid[0]));
  scope_ = outer;
  loop_depth_ = loop_depth;
  return result;
}

void Interpreter::read_arguments(const Node& n, Arguments& into) {
  for (uint32_t i = 0; i < n.n_list && !failure.happened; ++i) {
    const Node& a = node(listed(n, i));
    if (a.op == Op::kKeyword) {
      into.named.push_back({program_.names[size_t(a.id)], evaluate(a.kid[0])});
    } else if (a.op == Op::kSpread) {
      for (Value& item : items_of(evaluate(a.kid[0]))) into.places.push_back(std::move(item));
    } else if (a.op == Op::kSpreadKeywords) {
      Value map = evaluate(a.kid[0]);
      if (!map.is(Kind::kDict)) return void(fail(std::string("** needs a dictionary, not ") + kind_name(map)));
      for (size_t k = 0; k < map.object->keys.size(); ++k) into.named.push_back({map.object->keys[k].text(), map.object->items[k]});
    } else {
      into.places.push_back(evaluate(listed(n, i)));
    }
  }
}

Value Interpreter::evaluate_call(const Node& n, const Value* caller) {
  Arguments arguments;
  const Node& callee = node(n.kid[0]);
  Value function;
  std::string name;
  if (callee.op == Op::kAttribute) {
    // A method wins over a key of its name: parameters.items() must work for a dictionary that has "items".
    Value object = evaluate(callee.kid[0]);
    name = program_.names[size_t(callee.id)];
    read_arguments(n, arguments);
    line_ = n.line;
    if (failure.happened) return {};
    Value result;
    if (call_method(*this, object, name, arguments, result)) return result;
    function = attribute(object, name);
    if (function.is(Kind::kUndefined)) return fail(std::string(kind_name(object)) + " has no method " + name);
  } else {
    function = evaluate(n.kid[0]);
    if (callee.op == Op::kName) name = program_.names[size_t(callee.id)];
    read_arguments(n, arguments);
    line_ = n.line;
  }
  if (failure.happened) return {};
  if (function.is(Kind::kMacro)) return call_macro(function, arguments, caller);
  if (function.is(Kind::kFunction)) return call_function(*this, function, arguments);
  return fail((name.empty() ? std::string(kind_name(function)) : name + ", " + kind_name(function) + ",") + " cannot be called");
}

// ---- expressions ----

std::vector<Value> Interpreter::items_of(const Value& v) {
  std::vector<Value> items;
  switch (v.kind) {
    case Kind::kUndefined:
      break;
    case Kind::kList:
      items = v.object->items;
      break;
    case Kind::kDict:
      items = v.object->keys;
      break;
    case Kind::kText:
      for (size_t i = 0; i < v.text().size() && !failure.happened;) {
        size_t n = character_size(v.text(), i);
        items.push_back(text(v.text().substr(i, n)));
        i += n;
      }
      break;
    default:
      fail(std::string("cannot go over ") + kind_name(v));
  }
  spend(items.size());
  return items;
}

// An attribute of nothing is nothing, as in @huggingface/jinja; Jinja2 refuses it, so templates that work there work here.
Value Interpreter::attribute(const Value& object, std::string_view name) {
  if (object.is_map()) {
    spend(object.object->keys.size() / 4);
    const Value* found = object.object->find(name);
    return found ? *found : Value{};
  }
  if (!object.is(Kind::kLoop)) return {};
  const Object& o = *object.object;
  auto count = int64_t(o.items.size());
  if (name == "index") return whole(o.index + 1);
  if (name == "index0") return whole(o.index);
  if (name == "first") return boolean(o.index == 0);
  if (name == "last") return boolean(o.index + 1 == count);
  if (name == "length") return whole(count);
  if (name == "revindex") return whole(count - o.index);
  if (name == "revindex0") return whole(count - o.index - 1);
  if (name == "previtem") return o.index > 0 ? o.items[size_t(o.index - 1)] : Value{};
  if (name == "nextitem") return o.index + 1 < count ? o.items[size_t(o.index + 1)] : Value{};
  if (name == "depth") return whole(o.loop_depth);
  if (name == "depth0") return whole(o.loop_depth - 1);
  return {};
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (key.is(Kind::kText)) return attribute(object, key.text());
  if (key.is(Kind::kInt) && object.is(Kind::kList)) {
    const std::vector<Value>& items = object.object->items;
    int64_t i = key.whole < 0 ? key.whole + int64_t(items.size()) : key.whole;
    return i >= 0 && i < int64_t(items.size()) ? items[size_t(i)] : Value{};
  }
  if (key.is(Kind::kInt) && object.is(Kind::kText)) {
    std::vector<Value> characters = items_of(object);
    int64_t i = key.whole < 0 ? key.whole + int64_t(characters.size()) : key.whole;
    return i >= 0 && i < int64_t(characters.size()) ? characters[size_t(i)] : Value{};
  }
  if (object.is_map() && !key.is(Kind::kUndefined)) return fail(std::string("a dictionary's key cannot be ") + kind_name(key));
  return {};
}

Value Interpreter::evaluate_slice(const Node& n) {
  Value object = evaluate(n.kid[0]);
  int64_t part[3] = {0, 0, 1};
  bool is_given[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (n.kid[i + 1] < 0) continue;
    Value v = evaluate(n.kid[i + 1]);
    if (v.is(Kind::kNone)) continue;
    if (!v.is(Kind::kInt)) return fail(std::string("a slice cannot go by ") + kind_name(v));
    part[i] = v.whole;
    is_given[i] = true;
  }
  if (!object.is(Kind::kList) && !object.is(Kind::kText)) return fail(std::string("cannot slice ") + kind_name(object));
  std::vector<Value> items = items_of(object);
  if (failure.happened) return {};
  int64_t step = part[2];
  if (step == 0) return fail("a slice's step cannot be 0");
  auto count = int64_t(items.size());
  step = std::clamp(step, -count - 1, count + 1);
  int64_t low = step > 0 ? 0 : -1, high = step > 0 ? count : count - 1;
  auto bound = [&](size_t i, int64_t otherwise) {
    if (!is_given[i]) return otherwise;
    int64_t at = std::clamp(part[i], -count - 1, count + 1);
    return std::clamp(at < 0 ? at + count : at, low, high);
  };
  int64_t from = bound(0, step > 0 ? low : high), to = bound(1, step > 0 ? high : low);
  std::vector<Value> chosen;
  for (int64_t i = from; step > 0 ? i < to : i > to; i += step) chosen.push_back(items[size_t(i)]);
  if (object.is(Kind::kList)) return list(std::move(chosen));
  std::string out;
  for (const Value& c : chosen) out += c.text();
  return text(std::move(out));
}

Value Interpreter::evaluate_in(const Value& item, const Value& container) {
  switch (container.kind) {
    case Kind::kUndefined:
      return boolean(false);
    case Kind::kText:
      if (!item.is(Kind::kText)) return fail(std::string("only a text can be in a text, not ") + kind_name(item));
      spend(container.text().size() / 16);
      return boolean(container.text().find(item.text()) != std::string::npos);
    case Kind::kList:
      for (const Value& v : container.object->items) {
        if (is_equal(*this, v, item)) return boolean(true);
        if (failure.happened) break;
      }
      return boolean(false);
    case Kind::kDict:
      spend(container.object->keys.size() / 4);
      return boolean(item.is(Kind::kText) && container.object->find(item.text()));
    default:
      return fail(std::string("nothing can be in ") + kind_name(container));
  }
}

Value Interpreter::evaluate_compare(const Node& n) {
  Value a = evaluate(n.kid[0]), b = evaluate(n.kid[1]);
  if (failure.happened) return {};
  switch (n.op) {
    case Op::kEqual:
      return boolean(is_equal(*this, a, b));
    case Op::kUnequal:
      return boolean(!is_equal(*this, a, b));
    case Op::kLess:
      return boolean(compare(*this, a, b, false) < 0);
    case Op::kLessEqual:
      return boolean(compare(*this, a, b, false) <= 0);
    case Op::kGreater:
      return boolean(compare(*this, a, b, false) > 0);
    case Op::kGreaterEqual:
      return boolean(compare(*this, a, b, false) >= 0);
    case Op::kIn:
      return evaluate_in(a, b);
    default:
      return boolean(!is_true(evaluate_in(a, b)));
  }
}

Value Interpreter::evaluate_arithmetic(const Node& n) {
  Value a = evaluate(n.kid[0]), b = evaluate(n.kid[1]);
  line_ = n.line;
  if (failure.happened) return {};
  if (n.op == Op::kJoin) return text(shown(*this, a) + shown(*this, b));
  if (a.is_number() && b.is_number()) {
    bool is_whole = !a.is(Kind::kFloat) && !b.is(Kind::kFloat);
    int64_t x = a.integer(), y = b.integer(), r = 0;
    double p = a.number(), q = b.number();
    bool by_zero = (n.op == Op::kDivide || n.op == Op::kFloor || n.op == Op::kModulo) && q == 0;
    if (by_zero) return fail("a division by zero");
    bool overflows = false;
    switch (n.op) {
      case Op::kAdd:
        overflows = __builtin_add_overflow(x, y, &r);
        break;
      case Op::kSubtract:
        overflows = __builtin_sub_overflow(x, y, &r);
        break;
      case Op::kMultiply:
        overflows = __builtin_mul_overflow(x, y, &r);
        break;
      case Op::kDivide:
        return real(p / q);
      case Op::kFloor:
        if (!is_whole) return real(std::floor(p / q));
        overflows = y == -1 && x == INT64_MIN;
        if (!overflows) r = x / y - (x % y != 0 && (x < 0) != (y < 0));
        break;
      case Op::kModulo: {
        if (!is_whole) return real(p - q * std::floor(p / q));
        r = y == -1 ? 0 : x % y;
        if (r != 0 && (r < 0) != (y < 0)) r += y;
        break;
      }
      default: {  // kPower
        if (!is_whole || y < 0) return fail("** takes whole numbers, the second not below 0");
        r = 1;
        while (y > 0 && !overflows) {
          if (y & 1) overflows = __builtin_mul_overflow(r, x, &r);
          y >>= 1;
          if (y > 0 && !overflows) overflows = __builtin_mul_overflow(x, x, &x);
        }
        break;
      }
    }
    if (!is_whole) return real(n.op == Op::kAdd ? p + q : n.op == Op::kSubtract ? p - q : p * q);
    return overflows ? fail("a number grows too large") : whole(r);
  }
  bool has_nothing = a.is(Kind::kUndefined) || b.is(Kind::kUndefined) || a.is(Kind::kNone) || b.is(Kind::kNone);
  if (n.op == Op::kAdd && !has_nothing) {
    if (a.is(Kind::kList) && b.is(Kind::kList)) {
      std::vector<Value> items = a.object->items;
      items.insert(items.end(), b.object->items.begin(), b.object->items.end());
      return list(std::move(items));
    }
    // A text takes numbers and truth values, as in @huggingface/jinja; Python would want |string.
    bool has_text = a.is(Kind::kText) || b.is(Kind::kText);
    if (has_text && (a.is(Kind::kText) || a.is_number()) && (b.is(Kind::kText) || b.is_number())) {
      return text(shown(*this, a) + shown(*this, b));
    }
  }
  if (n.op == Op::kMultiply && a.is(Kind::kText) && b.is(Kind::kInt)) {
    if (b.whole > 0 && uint64_t(b.whole) * a.text().size() > kMaxOutput) return fail("a text grows too large");
    std::string out;
    for (int64_t i = 0; i < b.whole && !a.text().empty(); ++i) out += a.text();
    return text(std::move(out));
  }
  if (n.op == Op::kModulo && a.is(Kind::kText)) {
    Arguments arguments;
    if (b.is(Kind::kList)) {
      arguments.places = b.object->items;
    } else {
      arguments.places.push_back(b);
    }
    return filter_at(find_filter("format")).run(*this, a, arguments);
  }
  // The name helps more than the kind: a message without "content" is the usual cause.
  auto described = [&](int32_t id, const Value& v) {
    const Node& k = node(id);
    std::string name;
    if (k.op == Op::kName || k.op == Op::kAttribute) name = program_.names[size_t(k.id)];
    if (k.op == Op::kItem && node(k.kid[1]).op == Op::kConstant) name = shown(*this, program_.constants[size_t(node(k.kid[1]).id)]);
    return std::string(kind_name(v)) + (name.empty() ? "" : " (" + name + ")");
  };
  return fail("cannot combine " + described(n.kid[0], a) + " with " + described(n.kid[1], b));
}

Value Interpreter::evaluate_dict(const Node& n) {
  std::vector<Value> keys, items;
  for (uint32_t i = 0; i + 1 < n.n_list && !failure.happened; i += 2) {
    Value key = evaluate(listed(n, i));
    Value value = evaluate(listed(n, i + 1));
    if (!key.is(Kind::kText)) return fail(std::string("a dictionary's key cannot be ") + kind_name(key));
    bool is_new = true;
    for (size_t k = 0; k < keys.size() && is_new; ++k) {
      if (keys[k].text() != key.text()) continue;
      items[k] = value;
      is_new = false;
    }
    spend(keys.size() / 4);
    if (!is_new) continue;
    keys.push_back(std::move(key));
    items.push_back(std::move(value));
  }
  return dict(std::move(keys), std::move(items));
}

Value Interpreter::evaluate(int32_t id) {
  if (id < 0 || !spend(1)) return {};
  if (++depth_ > kMaxEvalDepth) fail("it calls itself too deeply");
  const Node& n = node(id);
  Value v = failure.happened ? Value{} : evaluate_node(n);
  --depth_;
  return v;
}

Value Interpreter::evaluate_node(const Node& n) {
  line_ = n.line;
  switch (n.op) {
    case Op::kConstant:
      return program_.constants[size_t(n.id)];
    case Op::kName:
      return *lookup(n.id);
    case Op::kCaptured:
      return captured_;
    case Op::kAttribute:
      return attribute(evaluate(n.kid[0]), program_.names[size_t(n.id)]);
    case Op::kItem: {
      Value object = evaluate(n.kid[0]);
      return item(object, evaluate(n.kid[1]));
    }
    case Op::kSlice:
      return evaluate_slice(n);
    case Op::kList: {
      std::vector<Value> items;
      for (uint32_t i = 0; i < n.n_list && !failure.happened; ++i) items.push_back(evaluate(listed(n, i)));
      return list(std::move(items));
    }
    case Op::kDict:
      return evaluate_dict(n);
    case Op::kCall:
      return evaluate_call(n, nullptr);
    case Op::kFilter: {
      Value value = evaluate(n.kid[0]);
      Arguments arguments;
      read_arguments(n, arguments);
      line_ = n.line;
      if (failure.happened) return {};
      return filter_at(n.id).run(*this, value, arguments);
    }
    case Op::kTest: {
      Value value = evaluate(n.kid[0]);
      Arguments arguments;
      read_arguments(n, arguments);
      if (failure.happened) return {};
      return boolean(test_at(n.id).run(*this, value, arguments.places.empty() ? Value{} : arguments.places[0]));
    }
    case Op::kTernary: {
      bool holds = is_true(evaluate(n.kid[0]));
      return evaluate(n.kid[holds ? 1 : 2]);
    }
    case Op::kAnd: {
      Value a = evaluate(n.kid[0]);
      return is_true(a) ? evaluate(n.kid[1]) : a;
    }
    case Op::kOr: {
      Value a = evaluate(n.kid[0]);
      return is_true(a) ? a : evaluate(n.kid[1]);
    }
    case Op::kNot:
      return boolean(!is_true(evaluate(n.kid[0])));
    case Op::kMinus:
    case Op::kPlus: {
      Value a = evaluate(n.kid[0]);
      if (!a.is_number()) return fail(std::string("no sign can stand before ") + kind_name(a));
      if (a.is(Kind::kFloat)) return real(n.op == Op::kMinus ? -a.real : a.real);
      return whole(n.op == Op::kMinus ? int64_t(0 - uint64_t(a.integer())) : a.integer());
    }
    case Op::kEqual:
    case Op::kUnequal:
    case Op::kLess:
    case Op::kLessEqual:
    case Op::kGreater:
    case Op::kGreaterEqual:
    case Op::kIn:
    case Op::kNotIn:
      return evaluate_compare(n);
    case Op::kAdd:
    case Op::kSubtract:
    case Op::kMultiply:
    case Op::kDivide:
    case Op::kFloor:
    case Op::kModulo:
    case Op::kPower:
    case Op::kJoin:
      return evaluate_arithmetic(n);
    default:
      return fail("this cannot stand here");
  }
}

}  // namespace sb::jinja
