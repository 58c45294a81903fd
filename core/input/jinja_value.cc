#include <algorithm>
#include <cmath>

#include "input/jinja.h"

namespace sb::jinja {

Value none() {
  Value v;
  v.kind = Kind::kNone;
  return v;
}
Value boolean(bool b) {
  Value v;
  v.kind = Kind::kBool;
  v.flag = b;
  return v;
}
Value whole(int64_t n) {
  Value v;
  v.kind = Kind::kInt;
  v.whole = n;
  return v;
}
Value real(double d) {
  Value v;
  v.kind = Kind::kFloat;
  v.real = d;
  return v;
}

const char* kind_name(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
      return "an undefined value";
    case Kind::kNone:
      return "none";
    case Kind::kBool:
      return "a truth value";
    case Kind::kInt:
      return "a whole number";
    case Kind::kFloat:
      return "a number";
    case Kind::kText:
      return "a text";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dictionary";
    case Kind::kNamespace:
      return "a namespace";
    case Kind::kLoop:
      return "the loop";
    case Kind::kMacro:
      return "a macro";
    case Kind::kFunction:
      return "a function";
  }
  return "";
}

bool is_true(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return v.flag;
    case Kind::kInt:
      return v.whole != 0;
    case Kind::kFloat:
      return v.real != 0;
    case Kind::kText:
      return !v.text().empty();
    case Kind::kList:
    case Kind::kDict:
      return !v.object->items.empty();
    default:
      return true;
  }
}

bool is_equal(Interpreter& run, const Value& a, const Value& b, int depth) {
  if (!run.spend(1)) return false;
  if (depth > kMaxValueDepth) return run.fail("values nested too deeply to compare"), false;
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::kFloat) || b.is(Kind::kFloat)) return a.number() == b.number();
    return a.integer() == b.integer();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kText:
      return a.text() == b.text();
    case Kind::kList: {
      const std::vector<Value>&x = a.object->items, &y = b.object->items;
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i) {
        if (!is_equal(run, x[i], y[i], depth + 1)) return false;
      }
      return true;
    }
    case Kind::kDict: {
      if (a.object->keys.size() != b.object->keys.size()) return false;
      for (size_t i = 0; i < a.object->keys.size(); ++i) {
        if (!run.spend(b.object->keys.size())) return false;
        const Value* other = b.object->find(a.object->keys[i].text());
        if (!other || !is_equal(run, a.object->items[i], *other, depth + 1)) return false;
      }
      return true;
    }
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kFunction:
      return a.whole == b.whole;
    default:
      return a.object == b.object;
  }
}

int compare(Interpreter& run, const Value& a, const Value& b, bool ignore_case, int depth) {
  if (!run.spend(1)) return 0;
  if (depth > kMaxValueDepth) return run.fail("values nested too deeply to compare"), 0;
  auto order = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : 0; };
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::kFloat) || b.is(Kind::kFloat)) return order(a.number(), b.number());
    return order(a.integer(), b.integer());
  }
  if (a.is(Kind::kText) && b.is(Kind::kText)) {
    // Bytes of UTF-8 are in the order of their characters.
    if (!ignore_case) return order(a.text().compare(b.text()), 0);
    run.spend((a.text().size() + b.text().size()) / 16);
    return order(to_lower(a.text()).compare(to_lower(b.text())), 0);
  }
  if (a.is(Kind::kList) && b.is(Kind::kList)) {
    const std::vector<Value>&x = a.object->items, &y = b.object->items;
    for (size_t i = 0; i < x.size() && i < y.size() && !run.failure.happened; ++i) {
      if (!is_equal(run, x[i], y[i], depth + 1)) return compare(run, x[i], y[i], ignore_case, depth + 1);
    }
    return order(x.size(), y.size());
  }
  run.fail(std::string("there is no order between ") + kind_name(a) + " and " + kind_name(b));
  return 0;
}

// A merge sort of our own: it stays inside its bounds even when the order contradicts itself (NaN), which std::sort does not promise.
void sort(Interpreter& run, std::vector<Value>& keys, std::vector<Value>& values, bool ignore_case, bool is_reverse) {
  size_t n = keys.size();
  std::vector<uint32_t> order(n), merged(n);
  for (size_t i = 0; i < n; ++i) order[i] = uint32_t(i);
  for (size_t width = 1; width < n; width *= 2) {
    for (size_t from = 0; from < n; from += 2 * width) {
      size_t middle = std::min(from + width, n), to = std::min(from + 2 * width, n);
      for (size_t out = from, i = from, j = middle; out < to; ++out) {
        bool takes_right = i == middle;
        if (!takes_right && j < to) {
          int c = compare(run, keys[order[i]], keys[order[j]], ignore_case);
          takes_right = is_reverse ? c < 0 : c > 0;
        }
        merged[out] = takes_right ? order[j++] : order[i++];
      }
    }
    order.swap(merged);
    if (run.failure.happened) return;
  }
  std::vector<Value> sorted;
  sorted.reserve(n);
  for (uint32_t i : order) sorted.push_back(values[i]);
  values = std::move(sorted);
}

namespace {

void write_json_text(std::string_view text, bool ascii, std::string& out) {
  auto hex = [&](uint32_t unit) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[unit >> shift & 15];
  };
  out += '"';
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    switch (c) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\b':
        out += "\\b";
        continue;
      case '\f':
        out += "\\f";
        continue;
      default:
        break;
    }
    size_t n = character_size(text, i);
    if (uint8_t(c) < 0x20) {
      hex(uint8_t(c));
    } else if (!ascii || uint8_t(c) < 0x80) {
      out += c;
    } else {
      uint32_t code = n == 1 ? 0xFFFD : uint8_t(c) & (0x7F >> n);
      for (size_t k = 1; k < n; ++k) code = code << 6 | (uint8_t(text[i + k]) & 0x3F);
      i += n - 1;
      if (code >= 0x10000) {
        hex(0xD800 + ((code - 0x10000) >> 10));
        code = 0xDC00 + (code & 0x3FF);
      }
      hex(code);
    }
  }
  out += '"';
}

std::string real_text(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d > 0 ? "Infinity" : "-Infinity";
  return json_text(Json(d));
}

}  // namespace

void write_json(Interpreter& run, const Value& v, const JsonStyle& style, std::string& out, int depth) {
  if (!run.spend(1)) return;
  if (depth > kMaxValueDepth) return void(run.fail("values nested too deeply to print"));
  auto new_line = [&](int levels) {
    if (style.indent < 0) return;
    out += '\n';
    out.append(size_t(style.indent) * size_t(levels), ' ');
  };
  switch (v.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      out += "null";
      return;
    case Kind::kBool:
      out += v.flag ? "true" : "false";
      return;
    case Kind::kInt:
      out += std::to_string(v.whole);
      return;
    case Kind::kFloat:
      out += real_text(v.real);
      return;
    case Kind::kText:
      run.spend(v.text().size() / 16);
      return write_json_text(v.text(), style.ascii, out);
    case Kind::kList:
    case Kind::kDict:
    case Kind::kNamespace:
      break;
    default:
      run.fail(std::string("cannot write ") + kind_name(v) + " as JSON");
      return;
  }
  bool is_list = v.is(Kind::kList);
  const Object& o = *v.object;
  std::vector<Value> order;  // of the keys, as whole numbers
  if (!is_list && style.is_sorted) {
    std::vector<Value> keys = o.keys;
    for (size_t i = 0; i < keys.size(); ++i) order.push_back(whole(int64_t(i)));
    sort(run, keys, order, false, false);
  }
  out += is_list ? '[' : '{';
  for (size_t i = 0; i < o.items.size() && !run.failure.happened; ++i) {
    size_t at = order.empty() ? i : size_t(order[i].whole);
    if (i) out += style.between;
    new_line(depth + 1);
    if (!is_list) {
      write_json_text(o.keys[at].text(), style.ascii, out);
      out += style.colon;
    }
    write_json(run, o.items[at], style, out, depth + 1);
    if (out.size() > kMaxOutput) return void(run.fail("a text grows past " + std::to_string(kMaxOutput) + " bytes"));
  }
  if (!o.items.empty()) new_line(depth);
  out += is_list ? ']' : '}';
}

std::string shown(Interpreter& run, const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return "";
    case Kind::kBool:
      return v.flag ? "True" : "False";
    case Kind::kText:
      return v.text();
    case Kind::kMacro:
    case Kind::kFunction:
    case Kind::kLoop:
      return kind_name(v);
    default:
      break;
  }
  std::string out;
  write_json(run, v, {}, out);
  return out;
}

}  // namespace sb::jinja
