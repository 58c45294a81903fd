// Measuring a model against another on text, and saying what came out: for `eval`, and after `quantize`.
#pragma once

#include "client.h"

namespace cli {

/// Files one after another.
std::string read_texts(const std::vector<std::string>& files);
/// `reference` may be null; `options`: those of data/options.json "eval". Returns sb_eval_report's JSON of all windows.
Json evaluate(sb_model* model, sb_model* reference, const std::string& text, const Json& options);
/// For people.
void print_report(const Json& report);

}  // namespace cli
