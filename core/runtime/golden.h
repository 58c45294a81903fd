// A model against reference outputs: golden.safetensors holds `in.*` and `out.*`, made by another implementation.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/model.h"

namespace sb {

/// |a − b| ≤ kGoldenTolerance · (1 + |b|) for every element, as the fixtures' README has it; ids equal.
inline constexpr double kGoldenTolerance = 1e-3;

struct GoldenOutput {
  std::string name;    // "out.logits"
  uint64_t n = 0;      // elements
  double max_abs = 0;  // largest |a − b|
  double worst = 0;    // largest |a − b| / (1 + |b|)
  bool passed = false;
};

struct GoldenReport {
  bool passed = false;
  std::vector<GoldenOutput> outputs;
  std::vector<std::byte> dump;  // what was computed, as a safetensors file under the golden names

  std::string json() const;
};

/// Runs a decoder on in.input_ids [1, T] in float32: out.logits, out.hidden_1, out.hidden_last and out.greedy_ids, whichever are there.
/// Errors: those of reading the file; kArgumentInvalid when it has no in.input_ids or names an output that this model does not have.
Result<GoldenReport> golden_run(Model& model, std::span<const std::byte> golden);

}  // namespace sb
