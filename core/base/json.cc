#include "base/json.h"

namespace sb {
namespace {

// nlohmann reports the byte of a syntax error only through its SAX interface when exceptions are off.
template <class J>
struct Builder : nlohmann::detail::json_sax_dom_parser<J> {
  using Base = nlohmann::detail::json_sax_dom_parser<J>;
  explicit Builder(J& root) : Base(root, false) {}
  template <class E>
  bool parse_error(size_t position, const std::string&, const E&) {
    byte = position;
    return false;
  }
  size_t byte = 0;
};

template <class J>
Result<J> parse(std::string_view text, std::string_view what) {
  J root;
  Builder<J> builder(root);
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
Result<Json> json_parse(std::string_view text, std::string_view what) { return parse<Json>(text, what); }
Result<OrderedJson> json_parse_ordered(std::string_view text, std::string_view what) { return parse<OrderedJson>(text, what); }

}  // namespace sb
