// All families, found by the name that a model's files give.
#pragma once

#include "models/graph.h"

namespace sb {

std::span<const Family* const> families();
/// Family::rework of the model's family; for Loading::bring_to.
WeightRework find_rework(const Config& config);
/// Changes the weights first where that is still to be done.
/// Errors: kArchitectureUnknown {file, architecture, known}, and those of Family::open.
Result<std::unique_ptr<ModelGraph>> open_model(const Config& config, WeightStore& weights, const Family** family);

}  // namespace sb
