// All families, found by the name that a model's files give.
#pragma once

#include "models/graph.h"

namespace sb {

std::span<const Family* const> families();
/// Errors: kArchitectureUnknown {file, architecture, known}, and those of Family::open.
Result<std::unique_ptr<ModelGraph>> open_model(const Config& config, WeightStore& weights, const Family** family);

}  // namespace sb
