#include "quantize/import.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "formats/decode.h"

namespace sb {
namespace {

/// Calls f(row, floats) for every row of a group until it says false; whether it never did.
template <class F>
bool each_row(const GroupPlan& group, F f) {
  std::vector<float> row(size_t(group.n_columns));
  int64_t n_before = 0;
  for (size_t i = 0; i < group.tensors.size(); n_before += group.n_rows[i++]) {
    for (int64_t r = 0; r < group.n_rows[i]; ++r) {
      decode_row(group.views[i], r, row.data(), group.n_columns);
      if (!f(n_before + r, row, group.views[i].dtype)) return false;
    }
  }
  return true;
}

std::optional<ImportedGroup> fit(const GroupPlan& group, Levels levels) {
  ImportedGroup out{levels, {}, true};
  const bool fits = each_row(group, [&](int64_t, const std::vector<float>& row, Dtype dtype) {
    const std::optional<float> scale = levels_scale(levels, row, dtype);
    if (!scale) return false;
    out.scales.push_back(*scale);
    out.has_half_scales = out.has_half_scales && half_to_float(float_to_half(*scale)) == *scale;
    return true;
  });
  if (!fits) return std::nullopt;
  return out;
}

}  // namespace

std::map<std::string, ImportedGroup> find_imports(const ModelPlan& plan) {
  std::map<std::string, ImportedGroup> imports;
  for (const GroupPlan& group : plan.groups) {
    for (const Levels levels : {Levels::kTernary, Levels::kFour}) {
      if (imports.contains(group.name)) break;
      if (std::optional<ImportedGroup> fitted = fit(group, levels)) imports.emplace(group.name, *std::move(fitted));
    }
  }
  return imports;
}

ImportedArrays import_arrays(const GroupPlan& group, const ImportedGroup& imported) {
  const int64_t n = plane_rows(group.rows()), n_words = plane_columns(group.n_columns) / 32;
  ImportedArrays out;
  out.words.resize(size_t(n * 2 * n_words));
  each_row(group, [&](int64_t r, const std::vector<float>& row, Dtype) {
    pack_levels(imported.levels, row, imported.scales[size_t(r)], out.words.data() + r * 2 * n_words, n_words);
    return true;
  });
  const size_t width = imported.has_half_scales ? 2 : 4;
  out.row_scale.resize(size_t(n) * width);  // padding has scale 0
  for (size_t r = 0; r < imported.scales.size(); ++r) {
    const float scale = imported.scales[r];
    const uint16_t half = float_to_half(scale);
    std::memcpy(out.row_scale.data() + r * width, imported.has_half_scales ? static_cast<const void*>(&half) : &scale, width);
  }
  return out;
}

uint64_t import_bytes(const GroupPlan& group, const ImportedGroup& imported) {
  const uint64_t n = uint64_t(plane_rows(group.rows()));
  return n * uint64_t(plane_columns(group.n_columns)) / 4 + n * (imported.has_half_scales ? 2 : 4) + 2 * sizeof(float);
}

}  // namespace sb
