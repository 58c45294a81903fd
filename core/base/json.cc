#include "base/json.h"

#include <set>

namespace sb {
namespace {

// nlohmann reports the byte of a syntax error only through its SAX interface when exceptions are off, and keeps the last of equal keys.
template <class J>
struct Builder : nlohmann::detail::json_sax_dom_parser<J> {
  using Base = nlohmann::detail::json_sax_dom_parser<J>;
  explicit Builder(J& root) : Base(root, false) {}
  template <class E>
  bool parse_error(size_t position, const std::string&, const E&) {
    byte = position;
    return false;
  }
  bool start_object(size_t n) { return ++depth, Base::start_object(n); }
  bool end_object() { return --depth, Base::end_object(); }
  bool start_array(size_t n) { return ++depth, Base::start_array(n); }
  bool end_array() { return --depth, Base::end_array(); }
  bool key(std::string& name) {
    if (twice && depth == 1 && !names.insert(name).second) *twice = name;
    return Base::key(name);
  }

  size_t byte = 0;
  int depth = 0;
  std::string* twice = nullptr;  // where to say it of a key of the outermost object
  std::set<std::string> names;
};

template <class J>
Result<J> parse(std::string_view text, std::string_view what, std::string* twice = nullptr) {
  J root;
  Builder<J> builder(root);
  builder.twice = twice;
  if (!J::sax_parse(text.begin(), text.end(), &builder)) return err(Code::kJsonInvalid, {{"what", what}, {"byte", builder.byte}});
  return root;
}

template <class J>
std::string text(const J& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::detail::error_handler_t::replace);
}

}  // namespace

std::string json_text(const Json& value, int indent) { return text(value, indent); }
std::string json_text(const OrderedJson& value, int indent) { return text(value, indent); }
Result<Json> json_parse(std::string_view text, std::string_view what, std::string* twice) { return parse<Json>(text, what, twice); }
Result<OrderedJson> json_parse_ordered(std::string_view text, std::string_view what) { return parse<OrderedJson>(text, what); }

}  // namespace sb
