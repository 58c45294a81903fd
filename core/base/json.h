// The one door to JSON (nlohmann-json, without exceptions). Accessors never abort on hostile input: a missing key or a wrong
// type is an empty optional, and parse failures are Results.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sb {

using Json = nlohmann::json;                 // keys sorted: fast look-up in large objects
using OrderedJson = nlohmann::ordered_json;  // keys as written: what chat templates and reports must keep

/// Parses `text`; `what` names the document in the error. Of equal keys the last counts; `twice` gets one that the outermost object has
/// more than once. Errors: kJsonInvalid {what, byte}.
Result<Json> json_parse(std::string_view text, std::string_view what, std::string* twice = nullptr);
Result<OrderedJson> json_parse_ordered(std::string_view text, std::string_view what);

/// Compact JSON text; bytes that are not UTF-8 become U+FFFD.
std::string json_text(const Json& value, int indent = -1);
std::string json_text(const OrderedJson& value, int indent = -1);

template <class J>
const J* json_find(const J& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  auto it = object.find(std::string(key));
  return it == object.end() ? nullptr : &*it;
}
template <class J>
std::optional<int64_t> json_int(const J& object, std::string_view key) {
  const J* v = json_find(object, key);
  if (!v || !v->is_number()) return std::nullopt;
  if (v->is_number_unsigned() && v->template get<uint64_t>() > uint64_t(INT64_MAX)) return std::nullopt;
  if (v->is_number_integer()) return v->template get<int64_t>();
  double d = v->template get<double>();
  if (!(d >= -9.0e15 && d <= 9.0e15) || d != double(int64_t(d))) return std::nullopt;
  return int64_t(d);
}
template <class J>
std::optional<double> json_number(const J& object, std::string_view key) {
  const J* v = json_find(object, key);
  if (!v || !v->is_number()) return std::nullopt;
  return v->template get<double>();
}
template <class J>
std::optional<bool> json_bool(const J& object, std::string_view key) {
  const J* v = json_find(object, key);
  if (!v || !v->is_boolean()) return std::nullopt;
  return v->template get<bool>();
}
template <class J>
std::optional<std::string> json_string(const J& object, std::string_view key) {
  const J* v = json_find(object, key);
  if (!v || !v->is_string()) return std::nullopt;
  return v->template get<std::string>();
}

}  // namespace sb
