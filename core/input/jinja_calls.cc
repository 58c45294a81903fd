// The vocabulary: methods of text, dictionaries and lists, and the built-in functions.
#include <algorithm>
#include <cstring>

#include "input/jinja.h"

namespace sb::jinja {
namespace {

// ---- methods of text ----

Value split(Interpreter& run, const std::string& s, const Arguments& a, bool from_right) {
  const Value* sep = a.find(0, "sep");
  int64_t most = whole_or(a.find(1, "maxsplit"), -1);
  std::vector<Value> out;
  auto put = [&](std::string_view part) { out.push_back(run.text(std::string(part))); };
  std::string_view rest = s;
  if (!sep || sep->is(Kind::kNone)) {  // runs of whitespace
    if (from_right && most >= 0) return run.fail("rsplit needs a separator here");
    for (int64_t n = 0; run.spend(1); ++n) {
      rest = strip(rest, true, false);
      if (rest.empty()) break;
      if (most >= 0 && n >= most) {
        put(rest);
        break;
      }
      size_t end = 0;
      while (end < rest.size() && !strip(rest.substr(end, character_size(rest, end)), true, false).empty())
        end += character_size(rest, end);
      put(rest.substr(0, end));
      rest.remove_prefix(end);
    }
    return run.list(std::move(out));
  }
  if (!sep->is(Kind::kText) || sep->text().empty()) return run.fail("split needs a separator that is a text and not empty");
  const std::string& by = sep->text();
  for (int64_t n = 0; (most < 0 || n < most) && run.spend(1); ++n) {
    size_t at = from_right ? rest.rfind(by) : rest.find(by);
    if (at == std::string_view::npos) break;
    put(from_right ? rest.substr(at + by.size()) : rest.substr(0, at));
    rest = from_right ? rest.substr(0, at) : rest.substr(at + by.size());
  }
  put(rest);
  if (from_right) std::reverse(out.begin(), out.end());
  return run.list(std::move(out));
}

Value has_end(Interpreter& run, const std::string& s, const Arguments& a, bool at_start) {
  if (a.places.empty()) return run.fail("startswith and endswith need a text");
  auto matches = [&](const Value& v) { return v.is(Kind::kText) && (at_start ? s.starts_with(v.text()) : s.ends_with(v.text())); };
  const Value& wanted = a.places[0];
  if (wanted.is(Kind::kText)) return boolean(matches(wanted));
  if (!wanted.is(Kind::kList)) return run.fail(std::string("startswith and endswith do not take ") + kind_name(wanted));
  for (const Value& v : wanted.object->items) {
    if (matches(v)) return boolean(true);
  }
  return boolean(false);
}

Value find_in(Interpreter& run, const std::string& s, const Arguments& a, bool from_right, bool must) {
  const std::string* wanted = text_or_null(a.find(0, "sub"));
  if (!wanted) return run.fail("find needs a text");
  run.spend(s.size() / 16);
  size_t at = from_right ? s.rfind(*wanted) : s.find(*wanted);
  if (at == std::string::npos) return must ? run.fail("index finds nothing") : whole(-1);
  return whole(int64_t(count_characters(std::string_view(s).substr(0, at))));
}

bool all_of(const std::string& s, bool digits, bool letters) {
  for (char c : s) {
    bool is_digit = c >= '0' && c <= '9';
    bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || uint8_t(c) >= 0x80;
    if (!((digits && is_digit) || (letters && is_letter))) return false;
  }
  return !s.empty();
}

struct TextMethod {
  const char* name;
  Value (*run)(Interpreter&, const std::string&, const Arguments&);
};
constexpr TextMethod kTextMethods[] = {
    {"strip", [](Interpreter& r, const std::string& s,
                 const Arguments& a) { return r.text(std::string(strip(s, true, true, text_or_null(a.find(0, "chars"))))); }},
    {"lstrip", [](Interpreter& r, const std::string& s,
                  const Arguments& a) { return r.text(std::string(strip(s, true, false, text_or_null(a.find(0, "chars"))))); }},
    {"rstrip", [](Interpreter& r, const std::string& s,
                  const Arguments& a) { return r.text(std::string(strip(s, false, true, text_or_null(a.find(0, "chars"))))); }},
    {"startswith", [](Interpreter& r, const std::string& s, const Arguments& a) { return has_end(r, s, a, true); }},
    {"endswith", [](Interpreter& r, const std::string& s, const Arguments& a) { return has_end(r, s, a, false); }},
    {"split", [](Interpreter& r, const std::string& s, const Arguments& a) { return split(r, s, a, false); }},
    {"rsplit", [](Interpreter& r, const std::string& s, const Arguments& a) { return split(r, s, a, true); }},
    {"upper", [](Interpreter& r, const std::string& s, const Arguments&) { return r.text(to_upper(s)); }},
    {"lower", [](Interpreter& r, const std::string& s, const Arguments&) { return r.text(to_lower(s)); }},
    {"title", [](Interpreter& r, const std::string& s, const Arguments&) { return r.text(to_title(s)); }},
    {"capitalize", [](Interpreter& r, const std::string& s, const Arguments&) { return r.text(to_capitalized(s)); }},
    {"find", [](Interpreter& r, const std::string& s, const Arguments& a) { return find_in(r, s, a, false, false); }},
    {"rfind", [](Interpreter& r, const std::string& s, const Arguments& a) { return find_in(r, s, a, true, false); }},
    {"index", [](Interpreter& r, const std::string& s, const Arguments& a) { return find_in(r, s, a, false, true); }},
    {"isdigit", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(all_of(s, true, false)); }},
    {"isnumeric", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(all_of(s, true, false)); }},
    {"isalpha", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(all_of(s, false, true)); }},
    {"isalnum", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(all_of(s, true, true)); }},
    {"isspace", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(!s.empty() && strip(s, true, false).empty()); }},
    {"isupper", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(s == to_upper(s) && s != to_lower(s)); }},
    {"islower", [](Interpreter&, const std::string& s, const Arguments&) { return boolean(s == to_lower(s) && s != to_upper(s)); }},
    {"removeprefix",
     [](Interpreter& r, const std::string& s, const Arguments& a) {
       const std::string* end = text_or_null(a.find(0, "prefix"));
       return r.text(end && s.starts_with(*end) ? s.substr(end->size()) : s);
     }},
    {"removesuffix",
     [](Interpreter& r, const std::string& s, const Arguments& a) {
       const std::string* end = text_or_null(a.find(0, "suffix"));
       return r.text(end && s.ends_with(*end) ? s.substr(0, s.size() - end->size()) : s);
     }},
    {"count",
     [](Interpreter& r, const std::string& s, const Arguments& a) {
       const std::string* wanted = text_or_null(a.find(0, "sub"));
       if (!wanted || wanted->empty()) return r.fail("count needs a text that is not empty");
       int64_t n = 0;
       r.spend(s.size() / 16);
       for (size_t at = s.find(*wanted); at != std::string::npos; at = s.find(*wanted, at + wanted->size())) ++n;
       return whole(n);
     }},
    {"splitlines",
     [](Interpreter& r, const std::string& s, const Arguments&) {
       std::vector<Value> lines;
       for (size_t at = 0; at < s.size() && r.spend(1);) {
         size_t end = std::min(s.find_first_of("\r\n", at), s.size());
         lines.push_back(r.text(s.substr(at, end - at)));
         at = end + (s.compare(end, 2, "\r\n") == 0 ? 2 : 1);
       }
       return r.list(std::move(lines));
     }},
};

// ---- functions ----

enum FunctionId : int64_t { kRange = 1, kMakeNamespace, kMakeDict, kRaise, kNow };

// The date that the context carries: "2024-07-26", "2024-07-26T10:11:12". The core has no clock of its own, so that the same messages give
// the same prompt everywhere; whoever calls it says which day it is.
bool read_date(Interpreter& run, std::array<int, 6>& date) {
  std::optional<std::string> given = json_string(run.context(), "date");
  if (!given) return false;
  date = {0, 1, 1, 0, 0, 0};
  size_t at = 0;
  for (size_t part = 0; part < 6 && at < given->size(); ++part) {
    int value = 0;
    size_t from = at;
    for (; at < given->size() && at < from + 4 && (*given)[at] >= '0' && (*given)[at] <= '9'; ++at)
      value = value * 10 + ((*given)[at] - '0');
    if (at == from) return false;
    date[part] = value;
    if (at < given->size() && !std::strchr("-T :.Z+", (*given)[at])) return false;
    ++at;
  }
  return date[0] > 0 && date[1] >= 1 && date[1] <= 12 && date[2] >= 1 && date[2] <= 31 && date[3] < 24 && date[4] < 60 && date[5] < 61;
}

Value call_range(Interpreter& run, const Arguments& a) {
  int64_t part[3] = {0, 0, 1};
  size_t n = a.places.size();
  for (size_t i = 0; i < n && i < 3; ++i) {
    if (!a.places[i].is(Kind::kInt)) return run.fail(std::string("range does not take ") + kind_name(a.places[i]));
    part[i] = a.places[i].whole;
  }
  if (n == 0 || n > 3 || part[2] == 0) return run.fail("range takes one to three whole numbers, the step not 0");
  if (n == 1) std::swap(part[0], part[1]);
  std::vector<Value> out;
  for (int64_t i = part[0]; part[2] > 0 ? i < part[1] : i > part[1];) {
    if (int64_t(out.size()) >= kMaxRange) return run.fail("range is longer than " + std::to_string(kMaxRange));
    out.push_back(whole(i));
    if (__builtin_add_overflow(i, part[2], &i)) break;
  }
  return run.list(std::move(out));
}

Value call_dict(Interpreter& run, const Arguments& a, Kind kind) {
  std::vector<Value> keys, items;
  auto put = [&](const Value& key, const Value& item) {
    for (size_t i = 0; i < keys.size(); ++i) {
      if (keys[i].text() == key.text()) return void(items[i] = item);
    }
    run.spend(1 + keys.size() / 4);
    keys.push_back(key);
    items.push_back(item);
  };
  if (!a.places.empty()) {
    const Value& from = a.places[0];
    if (from.is_map()) {
      keys = from.object->keys;
      items = from.object->items;
    } else {
      for (const Value& pair : run.items_of(from)) {
        std::vector<Value> two = run.items_of(pair);
        if (run.failure.happened) return {};
        if (two.size() != 2 || !two[0].is(Kind::kText)) return run.fail("a dictionary is made of pairs whose first is a text");
        put(two[0], two[1]);
      }
    }
  }
  for (const Argument& n : a.named) {
    Value key = run.text(std::string(n.name));
    if (run.failure.happened) return {};
    put(key, n.value);
  }
  return run.dict(std::move(keys), std::move(items), kind);
}

}  // namespace

bool call_method(Interpreter& run, const Value& object, std::string_view name, const Arguments& a, Value& result) {
  if (object.is(Kind::kText)) {
    run.spend(object.text().size() / 16);
    for (const TextMethod& m : kTextMethods) {
      if (name != m.name) continue;
      result = m.run(run, object.text(), a);
      return true;
    }
    if (name == "replace") {
      result = filter_at(find_filter("replace")).run(run, object, a);
    } else if (name == "format") {
      return run.fail("the method format is not known here; use the filter"), true;
    } else if (name == "join" && !a.places.empty()) {
      Arguments by;
      by.places.push_back(object);
      result = filter_at(find_filter("join")).run(run, a.places[0], by);
    } else {
      return false;
    }
    return true;
  }
  if (object.is(Kind::kDict)) {
    if (name == "items") {
      result = filter_at(find_filter("items")).run(run, object, a);
    } else if (name == "keys") {
      result = run.list(object.object->keys);
    } else if (name == "values") {
      result = run.list(object.object->items);
    } else if (name == "copy") {
      result = object;  // dictionaries never change
    } else if (name == "get") {
      const Value* key = a.find(0, "key");
      const Value* found = key && key->is(Kind::kText) ? object.object->find(key->text()) : nullptr;
      const Value* otherwise = a.find(1, "default");
      result = found ? *found : otherwise ? *otherwise : none();
    } else {
      return false;
    }
    return true;
  }
  if (object.is(Kind::kList) && (name == "index" || name == "count") && !a.places.empty()) {
    int64_t n = 0, at = -1;
    for (size_t i = 0; i < object.object->items.size() && !run.failure.happened; ++i) {
      if (!is_equal(run, object.object->items[i], a.places[0])) continue;
      if (n++ == 0) at = int64_t(i);
    }
    result = name == "count" ? whole(n) : at >= 0 ? whole(at) : run.fail("index finds nothing");
    return true;
  }
  if (object.is(Kind::kLoop) && name == "cycle" && !a.places.empty()) {
    result = a.places[size_t(object.object->index) % a.places.size()];
    return true;
  }
  return false;
}

Value function(Interpreter& run, std::string_view name) {
  Value v;
  int64_t id = name == "range"             ? kRange
               : name == "namespace"       ? kMakeNamespace
               : name == "dict"            ? kMakeDict
               : name == "raise_exception" ? kRaise
               : name == "strftime_now"    ? kNow
                                           : 0;
  std::array<int, 6> date;
  // Without a date it is not defined, and templates that ask (Llama 3.2) fall back to the date that they carry.
  if (id == 0 || (id == kNow && !read_date(run, date))) return v;
  v.kind = Kind::kFunction;
  v.whole = id;
  return v;
}

Value call_function(Interpreter& run, const Value& function, const Arguments& a) {
  switch (function.whole) {
    case kRange:
      return call_range(run, a);
    case kMakeNamespace:
      return call_dict(run, a, Kind::kNamespace);
    case kMakeDict:
      return call_dict(run, a, Kind::kDict);
    case kNow: {
      std::array<int, 6> date;
      const std::string* format = text_or_null(a.find(0, "format"));
      if (!format || !read_date(run, date)) return run.fail("strftime_now needs a format");
      run.spend(format->size());
      return run.text(format_date(date, *format));
    }
    default:
      if (!run.failure.happened) {
        std::string why = a.places.empty() ? "" : shown(run, a.places[0]);
        run.fail(std::move(why));
        run.failure.is_raised = true;
      }
      return {};
  }
}

}  // namespace sb::jinja
