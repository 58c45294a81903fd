// A caller's options, checked against a table of data/options.json: nothing unknown, nothing out of range, nothing forgotten.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "runtime/option_row.h"

namespace sb {

class Options {
 public:
  /// Checks `text`, a JSON object (empty text is {}), against `rows` (kGenerateOptions … of option_tables.h, which must outlive this).
  /// `also` names keys that may stand beside the options and that the caller reads through extra(): "prompt", "messages", "file".
  /// Errors: kJsonInvalid, kArgumentInvalid (no object), kOptionUnknown {option, nearest}, kOptionInvalid {option, value, expected}.
  static Result<Options> parse(std::string_view text, std::span<const OptionRow> rows, std::initializer_list<std::string_view> also = {});
  static Result<Options> check(Json object, std::span<const OptionRow> rows, std::initializer_list<std::string_view> also = {});

  /// The value given, else the row's default. The row must exist and be of that kind: anything else is a mistake of ours.
  int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::string text(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;

  /// Whether the caller gave this option (or extra key).
  bool given(std::string_view name) const { return json_find(object_, name) != nullptr; }
  /// The value of a key that is no option, or null when it was not given. Its type is the caller's to check.
  const Json* extra(std::string_view name) const { return json_find(object_, name); }

 private:
  Options(Json object, std::span<const OptionRow> rows) : object_(std::move(object)), rows_(rows) {}
  Json value(std::string_view name, OptionKind kind) const;

  Json object_;
  std::span<const OptionRow> rows_;
};

/// The rows as a list of {name, type, default, min?, max?, one_of?, doc}: what a client needs to offer them.
OrderedJson options_json(std::span<const OptionRow> rows);

/// The word of `words` with the fewest single-letter edits from `word`; the first among equals, "" when there are none.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words);

}  // namespace sb
