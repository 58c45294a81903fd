// One row of data/options.json; option_tables.h (generated) holds the rows.
#pragma once

namespace sb {

enum class OptionKind { kInt, kNumber, kBool, kString, kStrings };

struct OptionRow {
  const char* name;
  OptionKind kind;
  const char* default_text;  // JSON text; a plain word for kString
  double min, max;           // used when max > min
  bool exclusive_min;
  const char* one_of;  // comma-separated words for kString, or ""
  const char* doc;
};

}  // namespace sb
