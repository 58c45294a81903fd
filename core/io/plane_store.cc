#include "io/plane_store.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "formats/planes.h"
#include "io/tensor_index.h"

namespace sb {
namespace {

constexpr std::string_view kRefine = ".refine";

/// Checks of one matrix's arrays.
struct ArrayCheck {
  const MatrixEntry& matrix;
  const FindArray& find;
  std::string_view file;

  std::unexpected<Error> corrupt(const std::string& name, std::string_view why) const {
    return err(Code::kModelCorrupt, {{"file", file}, {"place", "tensor " + name}, {"why", why}});
  }
  std::unexpected<Error> misshapen(const std::string& name, const Shape& shape, const std::string& expected) const {
    return err(Code::kShapeMismatch,
               {{"what", "Tensor " + name + " of " + std::string(file)}, {"shape", shape.text()}, {"expected", expected}});
  }
  Result<ArrayKind> typed(const std::string& name, Dtype dtype) const {
    const std::optional<ArrayKind> array = find(name);
    if (!array) return err(Code::kTensorMissing, {{"file", file}, {"tensor", name}});
    if (array->dtype != dtype)
      return corrupt(name, std::string("it has type ") + dtype_name(array->dtype) + ", but " + dtype_name(dtype) + " is needed");
    return *array;
  }
  Status array(const std::string& name, Dtype dtype, const Shape& shape) const {
    SB_TRY(const ArrayKind array, typed(name, dtype));
    if (array.shape != shape) return misshapen(name, array.shape, shape.text());
    return {};
  }

  Status set(const std::string& name, const std::string& format) const {
    const PlaneFormat* known = plane_format(format);
    if (!known) return corrupt(name, "its format \"" + format + "\" is unknown");
    PlaneCode code = known->code;
    const int64_t n_rows = plane_rows(matrix.n_rows), n_columns = plane_columns(matrix.n_columns);
    SB_OK(array(name + ".planes", Dtype::kI32, {n_rows, code.n_planes, n_columns / 32}));
    const std::optional<ArrayKind> scales = find(name + ".sv");
    SB_OK(array(name + ".sv", scales && scales->dtype == Dtype::kF32 ? Dtype::kF32 : Dtype::kF16, {n_rows}));
    if (find(name + ".c")) SB_OK(array(name + ".c", Dtype::kF16, {n_columns}));
    // The numbers and the length of the filter are the file's own; the kernels' bounds are ours.
    SB_TRY(const ArrayKind filter, typed(name + ".filter", Dtype::kF32));
    const bool is_table = filter.shape.rank() == 2 && filter.shape[1] == code.n_planes && filter.shape[0] >= 1 &&
                          filter.shape[0] <= kMaxTaps && filter.shape[0] * code.n_planes <= kStateBits;
    if (is_table) code.n_taps = int(filter.shape[0]);
    if (!is_table || plane_format_name(code) != format)
      return misshapen(name + ".filter", filter.shape, Shape{known->code.n_taps, code.n_planes}.text());
    return {};
  }

  Status base() const {
    const std::string& name = matrix.name;
    if (matrix.format == kRows8) return array(name + ".rows8", Dtype::kU8, {matrix.n_rows, dtype_bytes(Dtype::kQ8_0, matrix.n_columns)});
    SB_OK(set(name, matrix.format));
    if (!find(name + ".su")) return {};
    if (matrix.n_columns % 32 != 0) return corrupt(name + ".su", "an input of no whole 32 is not rotated");
    return array(name + ".su", Dtype::kI32, {matrix.n_columns / 32});
  }
  bool has_refinement() const {
    return std::ranges::any_of(std::initializer_list<const char*>{".planes", ".sv", ".c", ".filter"},
                               [&](const char* array) { return find(refined() + array).has_value(); });
  }
  Status refinement() const { return set(refined(), matrix.refine); }
  std::string refined() const { return matrix.name + std::string(kRefine); }
};

Status check_matrix(const MatrixEntry& matrix, PlaneSets sets, const FindArray& find, std::string_view file) {
  const ArrayCheck check{matrix, find, file};
  SB_OK(check.base());
  if (!matrix.refine.empty() && (sets == PlaneSets::kFull || check.has_refinement())) SB_OK(check.refinement());
  return {};
}

FindArray arrays_of(const WeightStore& weights) {
  return [&weights](std::string_view name) -> std::optional<ArrayKind> {
    const WeightTensor* tensor = weights.find(name);
    if (!tensor) return std::nullopt;
    return ArrayKind{tensor->dtype, tensor->shape};
  };
}

/// The bytes of an array, which from now on belongs to `matrix`; nullptr when it is not there.
template <class T>
const T* claim(WeightStore& weights, const std::string& matrix, const std::string& name) {
  WeightTensor* tensor = weights.find(name);
  if (!tensor) return nullptr;
  tensor->array_of = matrix;
  return reinterpret_cast<const T*>(tensor->block.data());
}

/// Of arrays that are checked. The planes come into the order that the kernels want, in place.
PlaneSet claim_set(WeightStore& weights, const std::string& matrix, const std::string& name) {
  PlaneSet set;
  const Shape filter = weights.find(name + ".filter")->shape;
  set.code.n_taps = int(filter[0]);
  set.code.n_planes = int(filter[1]);
  const float* taps = claim<float>(weights, matrix, name + ".filter");
  for (int q = 0; q < set.code.n_taps; ++q) {
    for (int p = 0; p < set.code.n_planes; ++p) set.code.filter[size_t(q)][size_t(p)] = *taps++;
  }
  set.words = claim<uint32_t>(weights, matrix, name + ".planes");
  set.order = PlaneOrder::kBlocks;
  WeightTensor& planes = *weights.find(name + ".planes");
  set.there = planes.there.get();
  if (planes.block.size()) {  // a load of shapes has none
    pack_plane_blocks(reinterpret_cast<uint32_t*>(planes.block.data()), planes.shape[0], set.code.n_planes, planes.shape[2]);
  }
  if (weights.find(name + ".sv")->dtype == Dtype::kF32) {
    set.row_scale = claim<float>(weights, matrix, name + ".sv");
  } else {
    set.row_scale = claim<uint16_t>(weights, matrix, name + ".sv");
  }
  set.column_scale = claim<uint16_t>(weights, matrix, name + ".c");
  return set;
}

PlaneSet claim_refinement(WeightStore& weights, const MatrixEntry& entry) {
  return claim_set(weights, entry.name, entry.name + std::string(kRefine));
}

void claim_matrix(const MatrixEntry& entry, WeightStore& weights) {
  PlaneMatrix m;
  m.n_rows = plane_rows(entry.n_rows);
  m.n_columns = plane_columns(entry.n_columns);
  m.segment = plane_segment(m.n_rows);
  m.signs = claim<uint32_t>(weights, entry.name, entry.name + ".su");
  m.hadamard = m.signs ? plane_hadamard(m.n_columns) : 0;
  m.max_sets = entry.refine.empty() ? 1 : 2;
  m.sets[0] = claim_set(weights, entry.name, entry.name);
  if (!entry.refine.empty() && weights.find(entry.name + std::string(kRefine) + ".planes")) {
    m.sets[1] = claim_refinement(weights, entry);
    m.n_sets = 2;
  }
  SB_ASSERT(weights.add_matrix(entry.name, m));  // the index has each name once
}

Status add_rows8(const MatrixEntry& entry, WeightStore& weights) {
  WeightTensor* tensor = weights.find(entry.name + ".rows8");
  SB_OK(check_finite(tensor->name, tensor->file, Dtype::kQ8_0, tensor->block.bytes()));
  SB_OK(weights.rename(tensor->name, entry.rows.front().first));
  tensor->dtype = Dtype::kQ8_0;
  tensor->shape = {entry.n_rows, entry.n_columns};
  return {};
}

Status add_rows(const MatrixEntry& entry, WeightStore& weights) {
  const std::string file = weights.find(entry.name + ".planes")->file;
  const PlaneMatrix* matrix = weights.find_matrix(entry.name);
  int64_t first_row = 0;
  for (const auto& [name, n_rows] : entry.rows) {
    const Shape shape = {n_rows, entry.n_columns};
    SB_OK(weights.add(
        {.name = name, .file = file, .dtype = Dtype::kPlanes, .shape = shape, .block = {}, .planes = matrix, .first_row = first_row}));
    first_row += n_rows;
  }
  return {};
}

}  // namespace

Status check_arrays(const FolderIndex& index, PlaneSets sets, const FindArray& find, std::string_view file) {
  for (const MatrixEntry& matrix : index.matrices) SB_OK(check_matrix(matrix, sets, find, file));
  return {};
}

Status assemble_matrices(const FolderIndex& index, WeightStore& weights, PlaneSets sets) {
  SB_OK(check_arrays(index, sets, arrays_of(weights), weights.file()));
  // All arrays first: a tensor of the model may have the name of an array that is not there, and must not be taken for it.
  for (const MatrixEntry& entry : index.matrices) {
    if (entry.format != kRows8) claim_matrix(entry, weights);
  }
  for (const MatrixEntry& entry : index.matrices) SB_OK(entry.format == kRows8 ? add_rows8(entry, weights) : add_rows(entry, weights));
  return {};
}

std::set<std::string, std::less<>> refined_matrices(const WeightStore& weights) {
  std::set<std::string, std::less<>> refined;
  for (const auto& [name, matrix] : weights.matrices()) {
    if (matrix->n_sets > 1) refined.insert(name);
  }
  return refined;
}

Status attach_refinement(const FolderIndex& index, WeightStore refinement, WeightStore& weights) {
  const std::set<std::string, std::less<>> present = refined_matrices(weights);
  const auto lacks_it = [&](const MatrixEntry& entry) { return !entry.refine.empty() && !present.contains(entry.name); };
  const FindArray find = arrays_of(refinement);
  std::set<std::string, std::less<>> expected;
  for (const MatrixEntry& entry : index.matrices) {
    if (!lacks_it(entry)) continue;
    SB_ASSERT(weights.find_matrix(entry.name));
    const ArrayCheck check{entry, find, refinement.file()};
    SB_OK(check.refinement());
    for (const char* array : {".planes", ".sv", ".c", ".filter"}) expected.insert(check.refined() + array);
  }
  for (const auto& tensor : refinement.tensors()) {
    const char* why = !expected.contains(tensor->name) ? "it is part of no refinement"
                      : weights.find(tensor->name)     ? "the name occurs twice"
                                                       : nullptr;
    if (why) return err(Code::kModelCorrupt, {{"file", tensor->file}, {"place", "tensor " + tensor->name}, {"why", why}});
  }
  for (const MatrixEntry& entry : index.matrices) {
    if (!lacks_it(entry)) continue;
    PlaneMatrix& matrix = *weights.find_matrix(entry.name);
    matrix.sets[1] = claim_refinement(refinement, entry);  // blocks move with their bytes where they are
    matrix.n_sets = 2;
  }
  for (const auto& tensor : refinement.tensors()) SB_ASSERT(weights.add(std::move(*tensor)));
  return {};
}

uint64_t drop_refinement(const FolderIndex& index, WeightStore& weights, uint64_t n_bytes) {
  const auto is_of_refinement = [](const WeightTensor& tensor) {
    return !tensor.array_of.empty() && tensor.name.starts_with(tensor.array_of + std::string(kRefine) + ".");
  };
  std::map<std::string, uint64_t, std::less<>> bytes;
  for (const auto& tensor : weights.tensors()) {
    if (is_of_refinement(*tensor)) bytes[tensor->array_of] += tensor->n_bytes();
  }
  std::vector<std::string> order = index.give_back;
  for (const auto& [name, n] : bytes) order.push_back(name);  // an index need not name every one: those go last
  std::set<std::string, std::less<>> dropped;
  uint64_t n_freed = 0;
  for (const std::string& name : order) {
    if (n_freed >= n_bytes) break;
    if (!bytes.contains(name) || !dropped.insert(name).second) continue;
    PlaneMatrix& matrix = *weights.find_matrix(name);
    matrix.n_sets = 1;
    matrix.sets[1] = {};
    n_freed += bytes.find(name)->second;
  }
  return weights.remove([&](const WeightTensor& tensor) { return is_of_refinement(tensor) && dropped.contains(tensor.array_of); });
}

}  // namespace sb
