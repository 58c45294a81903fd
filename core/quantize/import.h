// Groups whose weights are few levels times a scale of their row already: they go into planes bit by bit, whatever the others lose
// (docs/formats.md §4).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/levels.h"
#include "quantize/matrices.h"

namespace sb {

struct ImportedGroup {
  Levels levels = Levels::kTernary;
  std::vector<float> scales;  // of all rows [N]
  bool has_half_scales = false;
};
/// By name: the groups of which every row has a scale for the same levels (formats/levels.h).
std::map<std::string, ImportedGroup> find_imports(const ModelPlan& plan);

/// The name of what they become in the folder.
inline constexpr const char* kImportFormat = "plain2";

/// The arrays of an imported group; neither column scales nor rotation.
struct ImportedArrays {
  std::vector<uint32_t> words;       // [N padded, 2, K padded / 32]
  std::vector<std::byte> row_scale;  // f16 or f32 [N padded]
};
ImportedArrays import_arrays(const GroupPlan& group, const ImportedGroup& imported);
/// Their bytes, and the filter's.
uint64_t import_bytes(const GroupPlan& group, const ImportedGroup& imported);

}  // namespace sb
