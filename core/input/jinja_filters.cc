// The vocabulary: filters and tests. Methods and functions are in jinja_calls.cc.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "input/jinja.h"

namespace sb::jinja {
namespace {

Value refuse(Interpreter& run, const char* name, const Value& v) { return run.fail(std::string(name) + " does not take " + kind_name(v)); }

// Text of a text filter's input: numbers and undefined are printed, the rest is refused by name.
bool text_of(Interpreter& run, const char* name, const Value& v, std::string& out) {
  if (v.is(Kind::kText) || v.is(Kind::kUndefined) || v.is_number()) {
    out = shown(run, v);
    return true;
  }
  refuse(run, name, v);
  return false;
}

// "function.name" or 0 of an item.
Value by_path(Interpreter& run, Value v, const Value& path) {
  if (!path.is(Kind::kText)) return run.item(v, path);
  std::string_view rest = path.text();
  while (!rest.empty() && !run.failure.happened) {
    std::string_view part = rest.substr(0, rest.find('.'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    bool is_index = !part.empty() && part.size() < 9;
    for (char c : part) is_index = is_index && c >= '0' && c <= '9';
    v = is_index && !v.is_map() ? run.item(v, whole(std::strtol(std::string(part).c_str(), nullptr, 10))) : run.attribute(v, part);
  }
  return v;
}

// ---- filters of anything ----

Value filter_default(Interpreter& run, const Value& v, const Arguments& a) {
  bool replaces = v.is(Kind::kUndefined) || (flag_or(a.find(1, "boolean"), false) && !is_true(v));
  if (!replaces) return v;
  const Value* otherwise = a.find(0, "default_value");
  return otherwise ? *otherwise : run.text("");
}
Value filter_safe(Interpreter&, const Value& v, const Arguments&) { return v; }
Value filter_string(Interpreter& run, const Value& v, const Arguments&) {
  if (v.is(Kind::kNone)) return run.text("None");  // tool calls of several models write it so
  return v.is(Kind::kText) ? v : run.text(shown(run, v));
}
Value filter_tojson(Interpreter& run, const Value& v, const Arguments& a) {
  JsonStyle style;
  const Value* indent = a.find(1, "indent");
  if (!indent && !a.places.empty()) indent = &a.places[0];
  if (indent && indent->is(Kind::kInt)) {
    style.indent = std::clamp<int64_t>(indent->whole, 0, 64);
    style.between = ",";
  }
  // Only by name, as their places differ between transformers and Jinja2.
  style.ascii = flag_or(a.find(SIZE_MAX, "ensure_ascii"), false);
  style.is_sorted = flag_or(a.find(SIZE_MAX, "sort_keys"), false);
  if (const Value* pair = a.find(SIZE_MAX, "separators"); pair && !pair->is(Kind::kNone)) {
    bool is_pair = pair->is(Kind::kList) && pair->object->items.size() == 2 && pair->object->items[0].is(Kind::kText) &&
                   pair->object->items[1].is(Kind::kText);
    if (!is_pair) return run.fail("tojson's separators are two texts");
    style.between = pair->object->items[0].text();
    style.colon = pair->object->items[1].text();
  }
  std::string out;
  write_json(run, v, style, out);
  return run.text(std::move(out));
}
Value filter_length(Interpreter& run, const Value& v, const Arguments&) {
  switch (v.kind) {
    case Kind::kUndefined:
      return whole(0);
    case Kind::kText:
      run.spend(v.text().size() / 16);
      return whole(int64_t(count_characters(v.text())));
    case Kind::kList:
    case Kind::kDict:
      return whole(int64_t(v.object->items.size()));
    default:
      return refuse(run, "length", v);
  }
}

// ---- filters of lists ----

Value filter_list(Interpreter& run, const Value& v, const Arguments&) { return v.is(Kind::kList) ? v : run.list(run.items_of(v)); }
Value filter_first(Interpreter& run, const Value& v, const Arguments&) {
  std::vector<Value> items = run.items_of(v);
  return items.empty() ? Value{} : items.front();
}
Value filter_last(Interpreter& run, const Value& v, const Arguments&) {
  std::vector<Value> items = run.items_of(v);
  return items.empty() ? Value{} : items.back();
}
Value filter_reverse(Interpreter& run, const Value& v, const Arguments&) {
  std::vector<Value> items = run.items_of(v);
  std::reverse(items.begin(), items.end());
  if (!v.is(Kind::kText)) return run.list(std::move(items));
  if (run.failure.happened) return {};
  std::string out;
  for (const Value& c : items) out += c.text();
  return run.text(std::move(out));
}
Value filter_join(Interpreter& run, const Value& v, const Arguments& a) {
  const std::string* given = text_or_null(a.find(0, "d"));
  if (!given) given = text_or_null(a.find(SIZE_MAX, "separator"));  // @huggingface/jinja's name
  const Value* path = a.find(1, "attribute");
  std::string out;
  bool is_first = true;
  for (const Value& item : run.items_of(v)) {
    if (!is_first && given) out += *given;
    is_first = false;
    out += shown(run, path && !path->is(Kind::kNone) ? by_path(run, item, *path) : item);
    if (!run.spend(1) || out.size() > kMaxOutput) break;
  }
  return run.text(std::move(out));
}
Value filter_sort(Interpreter& run, const Value& v, const Arguments& a) {
  std::vector<Value> items = run.items_of(v), keys;
  const Value* path = a.find(2, "attribute");
  for (const Value& item : items) keys.push_back(path && !path->is(Kind::kNone) ? by_path(run, item, *path) : item);
  sort(run, keys, items, !flag_or(a.find(1, "case_sensitive"), false), flag_or(a.find(0, "reverse"), false));
  return run.list(std::move(items));
}
Value filter_unique(Interpreter& run, const Value& v, const Arguments& a) {
  bool ignores_case = !flag_or(a.find(0, "case_sensitive"), false);
  const Value* path = a.find(1, "attribute");
  std::vector<Value> out, keys;
  for (const Value& item : run.items_of(v)) {
    Value key = path && !path->is(Kind::kNone) ? by_path(run, item, *path) : item;
    if (ignores_case && key.is(Kind::kText)) key = run.text(to_lower(key.text()));
    bool is_new = true;
    for (const Value& k : keys) is_new = is_new && !is_equal(run, k, key);
    if (run.failure.happened) break;
    if (!is_new) continue;
    keys.push_back(key);
    out.push_back(item);
  }
  return run.list(std::move(out));
}
Value extreme(Interpreter& run, const Value& v, const Arguments& a, int sign) {
  Value best, best_key;
  const Value* path = a.find(1, "attribute");
  for (const Value& item : run.items_of(v)) {
    Value key = path && !path->is(Kind::kNone) ? by_path(run, item, *path) : item;
    bool is_better = best_key.is(Kind::kUndefined) || compare(run, key, best_key, !flag_or(a.find(0, "case_sensitive"), false)) == sign;
    if (run.failure.happened) break;
    if (!is_better) continue;
    best = item;
    best_key = key;
  }
  return best;
}
Value filter_max(Interpreter& run, const Value& v, const Arguments& a) { return extreme(run, v, a, 1); }
Value filter_min(Interpreter& run, const Value& v, const Arguments& a) { return extreme(run, v, a, -1); }
Value filter_sum(Interpreter& run, const Value& v, const Arguments& a) {
  const Value* path = a.find(0, "attribute");
  double total = 0;
  bool is_whole = true;
  int64_t exact = 0;
  for (const Value& item : run.items_of(v)) {
    Value n = path && !path->is(Kind::kNone) ? by_path(run, item, *path) : item;
    if (!n.is_number()) return refuse(run, "sum", n);
    is_whole = is_whole && !n.is(Kind::kFloat) && !__builtin_add_overflow(exact, n.integer(), &exact);
    total += n.number();
  }
  return is_whole ? whole(exact) : real(total);
}

// map, select, reject and the attr pair: `what` says which.
Value filter_map(Interpreter& run, const Value& v, const Arguments& a) {
  const Value* path = a.find(SIZE_MAX, "attribute");
  const Value* otherwise = a.find(SIZE_MAX, "default");
  std::vector<Value> out;
  if (!is_true(v)) return run.list({});  // also none, as in Jinja2
  if (path) {
    for (const Value& item : run.items_of(v)) {
      Value found = by_path(run, item, *path);
      out.push_back(found.is(Kind::kUndefined) && otherwise ? *otherwise : found);
    }
    return run.list(std::move(out));
  }
  const std::string* name = text_or_null(a.find(0, ""));
  int32_t id = name ? find_filter(*name) : -1;
  if (id < 0) return run.fail(name ? "there is no filter " + *name + " here" : "map needs attribute= or a filter's name");
  if (*name == "map") return run.fail("map cannot map map");  // the one way to recurse without the tree's limit
  Arguments rest = a;
  rest.places.erase(rest.places.begin());
  for (const Value& item : run.items_of(v)) {
    if (!run.spend(1)) break;
    out.push_back(filter_at(id).run(run, item, rest));
  }
  return run.list(std::move(out));
}
Value select(Interpreter& run, const Value& v, const Arguments& a, bool by_attribute, bool wanted) {
  if (!is_true(v)) return run.list({});  // also none, as in Jinja2
  size_t at = by_attribute ? 1 : 0;
  if (by_attribute && a.places.empty()) return run.fail("selectattr and rejectattr need an attribute");
  int32_t id = -1;
  if (a.places.size() > at) {
    const std::string* name = text_or_null(&a.places[at]);
    id = name ? find_test(*name) : -1;
    if (id < 0) return run.fail("there is no test " + shown(run, a.places[at]) + " here");
  }
  Value argument = a.places.size() > at + 1 ? a.places[at + 1] : Value{};
  std::vector<Value> out;
  for (const Value& item : run.items_of(v)) {
    Value tested = by_attribute ? by_path(run, item, a.places[0]) : item;
    bool holds = id < 0 ? is_true(tested) : test_at(id).run(run, tested, argument);
    if (!run.spend(1)) break;
    if (holds == wanted) out.push_back(item);
  }
  return run.list(std::move(out));
}
Value filter_select(Interpreter& run, const Value& v, const Arguments& a) { return select(run, v, a, false, true); }
Value filter_reject(Interpreter& run, const Value& v, const Arguments& a) { return select(run, v, a, false, false); }
Value filter_selectattr(Interpreter& run, const Value& v, const Arguments& a) { return select(run, v, a, true, true); }
Value filter_rejectattr(Interpreter& run, const Value& v, const Arguments& a) { return select(run, v, a, true, false); }

// ---- filters of dictionaries ----

Value pairs_of(Interpreter& run, const Value& v) {
  std::vector<Value> out;
  for (size_t i = 0; i < v.object->keys.size() && run.spend(1); ++i) out.push_back(run.list({v.object->keys[i], v.object->items[i]}));
  return run.list(std::move(out));
}
Value filter_items(Interpreter& run, const Value& v, const Arguments&) {
  if (v.is(Kind::kUndefined)) return run.list({});
  return v.is(Kind::kDict) ? pairs_of(run, v) : refuse(run, "items", v);
}
Value filter_dictsort(Interpreter& run, const Value& v, const Arguments& a) {
  if (!v.is(Kind::kDict)) return refuse(run, "dictsort", v);
  const std::string* by = text_or_null(a.find(1, "by"));
  std::vector<Value> keys = by && *by == "value" ? v.object->items : v.object->keys;
  Value listed = pairs_of(run, v);
  if (run.failure.happened) return {};
  std::vector<Value> pairs = listed.object->items;
  sort(run, keys, pairs, !flag_or(a.find(0, "case_sensitive"), false), flag_or(a.find(2, "reverse"), false));
  return run.list(std::move(pairs));
}
Value filter_attr(Interpreter& run, const Value& v, const Arguments& a) {
  const std::string* name = text_or_null(a.find(0, "name"));
  return name ? run.attribute(v, *name) : Value{};
}

// ---- filters of numbers ----

// The number that all of `text` is, as Python's int() and float() read it.
bool read_number(const std::string& text, bool wants_whole, Value& out) {
  std::string s(strip(text, true, true));
  std::erase(s, '_');
  if (s.empty() || s.size() > 64 || s.find_first_not_of("0123456789+-.eE") != std::string::npos) return false;
  char* end = nullptr;
  if (s.find_first_of(".eE") == std::string::npos && s.size() < 19) {
    int64_t n = std::strtoll(s.c_str(), &end, 10);
    if (*end) return false;
    out = wants_whole ? whole(n) : real(double(n));
    return true;
  }
  double d = std::strtod(s.c_str(), &end);
  if (*end || end == s.c_str()) return false;
  if (!wants_whole) {
    out = real(d);
  } else {
    if (!(std::fabs(d) < 9.2e18)) return false;
    out = whole(int64_t(d));
  }
  return true;
}
Value convert(Interpreter& run, const Value& v, const Arguments& a, bool wants_whole) {
  if (v.is(Kind::kFloat) && wants_whole && !(std::fabs(v.real) < 9.2e18)) return refuse(run, "int", v);
  if (v.is_number()) return wants_whole ? whole(v.is(Kind::kFloat) ? int64_t(v.real) : v.integer()) : real(v.number());
  Value out;
  if (v.is(Kind::kText) && read_number(v.text(), wants_whole, out)) return out;
  const Value* otherwise = a.find(0, "default");
  return otherwise ? *otherwise : wants_whole ? whole(0) : real(0);
}
Value filter_int(Interpreter& run, const Value& v, const Arguments& a) { return convert(run, v, a, true); }
Value filter_float(Interpreter& run, const Value& v, const Arguments& a) { return convert(run, v, a, false); }
Value filter_abs(Interpreter& run, const Value& v, const Arguments&) {
  if (!v.is_number()) return refuse(run, "abs", v);
  if (v.is(Kind::kFloat)) return real(std::fabs(v.real));
  return whole(v.integer() < 0 ? int64_t(0 - uint64_t(v.integer())) : v.integer());
}
Value filter_round(Interpreter& run, const Value& v, const Arguments& a) {
  if (!v.is_number()) return refuse(run, "round", v);
  const std::string* method = text_or_null(a.find(1, "method"));
  double scale = 1;
  for (int64_t i = std::clamp<int64_t>(whole_or(a.find(0, "precision"), 0), 0, 15); i > 0; --i) scale *= 10;
  double x = v.number() * scale;
  x = method && *method == "ceil" ? std::ceil(x) : method && *method == "floor" ? std::floor(x) : std::nearbyint(x);
  return real(x / scale);
}

// ---- filters of text ----

template <std::string (*change)(std::string_view)>
Value change_text(Interpreter& run, const Value& v, const Arguments&) {
  std::string s;
  return text_of(run, "a filter of text", v, s) ? run.text(change(s)) : Value{};
}
Value filter_trim(Interpreter& run, const Value& v, const Arguments& a) {
  std::string s;
  if (!text_of(run, "trim", v, s)) return {};
  return run.text(std::string(strip(s, true, true, text_or_null(a.find(0, "chars")))));
}
Value filter_replace(Interpreter& run, const Value& v, const Arguments& a) {
  std::string s;
  const std::string *from = text_or_null(a.find(0, "old")), *to = text_or_null(a.find(1, "new"));
  if (!from || !to) return run.fail("replace needs two texts");
  return text_of(run, "replace", v, s) ? run.text(replace_all(run, s, *from, *to, whole_or(a.find(2, "count"), -1))) : Value{};
}
Value filter_indent(Interpreter& run, const Value& v, const Arguments& a) {
  std::string s, out;
  if (!text_of(run, "indent", v, s)) return {};
  const Value* width = a.find(0, "width");
  std::string by =
      width && width->is(Kind::kText) ? width->text() : std::string(size_t(std::clamp<int64_t>(whole_or(width, 4), 0, 256)), ' ');
  bool first = flag_or(a.find(1, "first"), false), blank = flag_or(a.find(2, "blank"), false);
  for (size_t at = 0; at <= s.size() && run.spend(1 + by.size() / 16);) {
    size_t end = std::min(s.find('\n', at), s.size());
    if (at > 0) out += '\n';
    if ((at > 0 || first) && (end > at || blank)) out += by;
    out.append(s, at, end - at);
    if (out.size() > kMaxOutput) break;
    at = end + 1;
  }
  return run.text(std::move(out));
}
Value filter_escape(Interpreter& run, const Value& v, const Arguments&) {
  std::string s, out;
  if (!text_of(run, "escape", v, s)) return {};
  for (char c : s) {
    const char* entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&#34;" : c == '\'' ? "&#39;" : nullptr;
    entity ? out += entity : out += c;
  }
  return run.text(std::move(out));
}
Value filter_format(Interpreter& run, const Value& v, const Arguments& a) {
  std::string s, out;
  if (!text_of(run, "format", v, s)) return {};
  size_t used = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '%') {
      out += s[i];
      continue;
    }
    char c = ++i < s.size() ? s[i] : '\0';
    if (c == '%') {
      out += '%';
      continue;
    }
    if (c != 's' && c != 'd' && c != 'i') return run.fail("format knows %s, %d and %% only");
    if (used >= a.places.size()) return run.fail("format has too few values");
    const Value& value = a.places[used++];
    out += c == 's' || !value.is(Kind::kFloat) ? shown(run, value) : std::to_string(int64_t(std::clamp(value.real, -9.2e18, 9.2e18)));
    if (out.size() > kMaxOutput) break;
  }
  return run.text(std::move(out));
}

constexpr Filter kFilters[] = {
    {"default", filter_default},
    {"d", filter_default},
    {"trim", filter_trim},
    {"tojson", filter_tojson},
    {"length", filter_length},
    {"count", filter_length},
    {"string", filter_string},
    {"safe", filter_safe},
    {"join", filter_join},
    {"list", filter_list},
    {"first", filter_first},
    {"last", filter_last},
    {"items", filter_items},
    {"map", filter_map},
    {"select", filter_select},
    {"reject", filter_reject},
    {"selectattr", filter_selectattr},
    {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse},
    {"sort", filter_sort},
    {"unique", filter_unique},
    {"dictsort", filter_dictsort},
    {"max", filter_max},
    {"min", filter_min},
    {"sum", filter_sum},
    {"attr", filter_attr},
    {"upper", change_text<to_upper>},
    {"lower", change_text<to_lower>},
    {"title", change_text<to_title>},
    {"capitalize", change_text<to_capitalized>},
    {"replace", filter_replace},
    {"indent", filter_indent},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"format", filter_format},
};

// ---- tests ----

bool ordered(Interpreter& run, const Value& a, const Value& b, int low, int high) {
  int c = compare(run, a, b, false);
  return c >= low && c <= high;
}
bool has_rest(Interpreter& run, const Value& v, const Value& by, int64_t rest) {
  if ((!v.is(Kind::kInt) && !v.is(Kind::kBool)) || !by.is(Kind::kInt) || by.whole == 0) {
    run.fail(std::string("only a whole number can be odd, even or divisible, not ") + kind_name(v));
    return false;
  }
  return by.whole == -1 || (v.integer() % by.whole != 0) == (rest != 0);
}
bool is_in(Interpreter& run, const Value& v, const Value& container) {
  if (container.is(Kind::kText)) return v.is(Kind::kText) && container.text().find(v.text()) != std::string::npos;
  for (const Value& item : run.items_of(container)) {
    if (is_equal(run, item, v)) return true;
  }
  return false;
}

constexpr Test kTests[] = {
    {"defined", false, [](Interpreter&, const Value& v, const Value&) { return !v.is(Kind::kUndefined); }},
    {"undefined", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kUndefined); }},
    {"none", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kNone); }},
    {"string", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kText); }},
    {"mapping", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kDict); }},
    {"iterable", false,
     [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kList) || v.is(Kind::kText) || v.is(Kind::kDict); }},
    {"sequence", false,
     [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kList) || v.is(Kind::kText) || v.is(Kind::kDict); }},
    {"number", false, [](Interpreter&, const Value& v, const Value&) { return v.is_number(); }},
    {"integer", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kInt); }},
    {"float", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kFloat); }},
    {"boolean", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kBool); }},
    {"true", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kBool) && v.flag; }},
    {"false", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kBool) && !v.flag; }},
    {"callable", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kMacro) || v.is(Kind::kFunction); }},
    {"odd", false, [](Interpreter& run, const Value& v, const Value&) { return has_rest(run, v, whole(2), 1); }},
    {"even", false, [](Interpreter& run, const Value& v, const Value&) { return has_rest(run, v, whole(2), 0); }},
    {"divisibleby", true, [](Interpreter& run, const Value& v, const Value& a) { return has_rest(run, v, a, 0); }},
    {"lower", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kText) && v.text() == to_lower(v.text()); }},
    {"upper", false, [](Interpreter&, const Value& v, const Value&) { return v.is(Kind::kText) && v.text() == to_upper(v.text()); }},
    {"in", true, is_in},
    {"eq", true, [](Interpreter& run, const Value& v, const Value& a) { return is_equal(run, v, a); }},
    {"equalto", true, [](Interpreter& run, const Value& v, const Value& a) { return is_equal(run, v, a); }},
    {"==", true, [](Interpreter& run, const Value& v, const Value& a) { return is_equal(run, v, a); }},
    {"sameas", true, [](Interpreter& run, const Value& v, const Value& a) { return v.kind == a.kind && is_equal(run, v, a); }},
    {"ne", true, [](Interpreter& run, const Value& v, const Value& a) { return !is_equal(run, v, a); }},
    {"!=", true, [](Interpreter& run, const Value& v, const Value& a) { return !is_equal(run, v, a); }},
    {"lt", true, [](Interpreter& run, const Value& v, const Value& a) { return ordered(run, v, a, -1, -1); }},
    {"le", true, [](Interpreter& run, const Value& v, const Value& a) { return ordered(run, v, a, -1, 0); }},
    {"gt", true, [](Interpreter& run, const Value& v, const Value& a) { return ordered(run, v, a, 1, 1); }},
    {"ge", true, [](Interpreter& run, const Value& v, const Value& a) { return ordered(run, v, a, 0, 1); }},
};

}  // namespace

int32_t find_filter(std::string_view name) {
  for (size_t i = 0; i < std::size(kFilters); ++i) {
    if (name == kFilters[i].name) return int32_t(i);
  }
  return -1;
}
int32_t find_test(std::string_view name) {
  for (size_t i = 0; i < std::size(kTests); ++i) {
    if (name == kTests[i].name) return int32_t(i);
  }
  if (name == "lessthan") return find_test("lt");
  if (name == "greaterthan") return find_test("gt");
  return -1;
}
const Filter& filter_at(int32_t index) { return kFilters[index]; }
const Test& test_at(int32_t index) { return kTests[index]; }

}  // namespace sb::jinja
