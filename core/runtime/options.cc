#include "runtime/options.h"

#include <algorithm>
#include <cmath>

namespace sb {
namespace {

const OptionRow* row_of(std::span<const OptionRow> rows, std::string_view name) {
  for (const OptionRow& row : rows) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

bool is_one_of(std::string_view word, std::string_view list) {
  while (!list.empty()) {
    size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

bool is_in_range(const OptionRow& row, double v) {
  if (!std::isfinite(v)) return false;
  if (row.max <= row.min) return true;
  return v <= row.max && (row.exclusive_min ? v > row.min : v >= row.min);
}

bool is_valid(const OptionRow& row, const Json& object, const Json& v) {
  switch (row.kind) {
    case OptionKind::kInt: {
      std::optional<int64_t> n = json_int(object, row.name);
      return n && is_in_range(row, double(*n));
    }
    case OptionKind::kNumber:
      return v.is_number() && is_in_range(row, v.get<double>());
    case OptionKind::kBool:
      return v.is_boolean();
    case OptionKind::kString:
      return v.is_string() && (!*row.one_of || is_one_of(v.get_ref<const std::string&>(), row.one_of));
    case OptionKind::kStrings:
      if (!v.is_array()) return false;
      for (const Json& item : v) {
        if (!item.is_string() || item.get_ref<const std::string&>().empty()) return false;
      }
      return true;
  }
  return false;
}

std::string number_text(double v) {
  bool is_whole = std::fabs(v) <= 9007199254740992.0 && v == double(int64_t(v));
  return is_whole ? std::to_string(int64_t(v)) : json_text(Json(v));
}

std::string expected(const OptionRow& row) {
  switch (row.kind) {
    case OptionKind::kInt:
    case OptionKind::kNumber: {
      std::string text = row.kind == OptionKind::kInt ? "a whole number" : "a number";
      if (row.max <= row.min) return text;
      text += row.exclusive_min ? " above " : " from ";
      text += number_text(row.min);
      text += row.exclusive_min ? " and at most " : " to ";
      return text + number_text(row.max);
    }
    case OptionKind::kBool:
      return "true or false";
    case OptionKind::kStrings:
      return "a list of texts, none of them empty";
    case OptionKind::kString:
      break;
  }
  if (!*row.one_of) return "a text";
  std::string text = "one of ";
  for (const char* c = row.one_of; *c; ++c) text += *c == ',' ? std::string(", ") : std::string(1, *c);
  return text;
}

// A value as an error shows it: a pasted megabyte is cut, on a character's edge.
std::string shown(const Json& v) {
  std::string text = json_text(v);
  constexpr size_t kMost = 80;
  if (text.size() <= kMost) return text;
  size_t end = kMost;
  while (end > 0 && (uint8_t(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace

OrderedJson options_json(std::span<const OptionRow> rows) {
  static constexpr const char* kTypes[] = {"int", "number", "bool", "string", "strings"};
  OrderedJson list = OrderedJson::array();
  for (const OptionRow& row : rows) {
    OrderedJson j = {{"name", row.name}, {"type", kTypes[size_t(row.kind)]}};
    j["default"] = row.kind == OptionKind::kString ? OrderedJson(row.default_text)
                                                   : json_parse_ordered(row.default_text, row.name).value_or(OrderedJson());
    if (row.max > row.min) j["min"] = row.min, j["max"] = row.max;
    for (std::string_view words = row.one_of; !words.empty();) {
      const size_t comma = std::min(words.find(','), words.size());
      j["one_of"].push_back(std::string(words.substr(0, comma)));
      words.remove_prefix(std::min(comma + 1, words.size()));
    }
    j["doc"] = row.doc;
    list.push_back(std::move(j));
  }
  return list;
}

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words) {
  std::string_view best;
  size_t fewest = SIZE_MAX;
  word = word.substr(0, 64);  // a key of a megabyte has no neighbour anyway
  std::vector<size_t> row(word.size() + 1);
  for (std::string_view candidate : words) {
    for (size_t i = 0; i < row.size(); ++i) row[i] = i;
    for (size_t j = 0; j < candidate.size(); ++j) {  // Levenshtein, one row at a time
      size_t diagonal = row[0]++;
      for (size_t i = 1; i < row.size(); ++i) {
        size_t edited = diagonal + (word[i - 1] != candidate[j]);
        diagonal = row[i];
        row[i] = std::min({edited, row[i] + 1, row[i - 1] + 1});
      }
    }
    if (row.back() < fewest) {
      fewest = row.back();
      best = candidate;
    }
  }
  return best;
}

Result<Options> Options::parse(std::string_view text, std::span<const OptionRow> rows, std::initializer_list<std::string_view> also) {
  if (text.empty()) return Options(Json::object(), rows);
  SB_TRY(Json object, json_parse(text, "the options"));
  return check(std::move(object), rows, also);
}

Result<Options> Options::check(Json object, std::span<const OptionRow> rows, std::initializer_list<std::string_view> also) {
  if (!object.is_object()) {
    return err(Code::kArgumentInvalid, {{"what", "The options are no JSON object"}, {"fix", "Give them as {\"name\": value}."}});
  }
  for (auto it = object.begin(); it != object.end(); ++it) {
    const std::string& key = it.key();
    if (std::find(also.begin(), also.end(), key) != also.end()) continue;
    const OptionRow* row = row_of(rows, key);
    if (!row) {
      std::vector<std::string_view> words;
      for (const OptionRow& r : rows) words.push_back(r.name);
      words.insert(words.end(), also.begin(), also.end());
      return err(Code::kOptionUnknown, {{"option", key}, {"nearest", nearest_word(key, words)}});
    }
    if (!is_valid(*row, object, *it)) {
      return err(Code::kOptionInvalid, {{"option", key}, {"value", shown(*it)}, {"expected", expected(*row)}});
    }
  }
  return Options(std::move(object), rows);
}

Json Options::value(std::string_view name, OptionKind kind) const {
  const OptionRow* row = row_of(rows_, name);
  SB_ASSERT(row && row->kind == kind);
  if (const Json* v = json_find(object_, name)) return *v;
  if (kind == OptionKind::kString) return Json(std::string(row->default_text));
  Result<Json> parsed = json_parse(row->default_text, row->name);
  SB_ASSERT(parsed);
  return std::move(*parsed);
}

int64_t Options::integer(std::string_view name) const {
  Json v = value(name, OptionKind::kInt);
  return v.is_number_float() ? int64_t(v.get<double>()) : v.get<int64_t>();
}
double Options::number(std::string_view name) const { return value(name, OptionKind::kNumber).get<double>(); }
bool Options::flag(std::string_view name) const { return value(name, OptionKind::kBool).get<bool>(); }
std::string Options::text(std::string_view name) const { return value(name, OptionKind::kString).get<std::string>(); }
std::vector<std::string> Options::texts(std::string_view name) const {
  std::vector<std::string> out;
  for (const Json& item : value(name, OptionKind::kStrings)) out.push_back(item.get<std::string>());
  return out;
}

}  // namespace sb
