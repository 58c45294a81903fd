// From the arrays of a quantised folder to the model's tensors, and the refinement that comes and goes while a model lives.
//
// A matrix NAME lies in its shards as NAME.planes U32 [Np, P, Kp/32], NAME.sv F16 or F32 [Np], NAME.c F16 [Kp] (absent: all 1), NAME.su
// U32 [Kp/32] (absent: no rotation), NAME.filter F32 [J, P]; its refinement as NAME.refine.planes, .sv, .c, .filter. Of format rows8 it is
// NAME.rows8 U8 [N, 34·K/32]: rows of Q8_0 blocks as GGUF has them.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "io/folder_index.h"
#include "io/weights.h"

namespace sb {

/// What an array is, without its bytes.
struct ArrayKind {
  Dtype dtype = Dtype::kF32;
  Shape shape;
};
using FindArray = std::function<std::optional<ArrayKind>(std::string_view name)>;
/// Checks that the arrays of `sets` are all there with types and shapes that fit.
/// Errors: kTensorMissing, kShapeMismatch, kModelCorrupt.
Status check_arrays(const FolderIndex& index, PlaneSets sets, const FindArray& find, std::string_view file);

/// Makes the model's tensors of the arrays, which stay in the store, marked by array_of. A matrix has two sets when its refinement's arrays
/// are there; with kFull they have to be.
/// Errors: those of check_arrays; kWeightsNotFinite; kModelCorrupt when a tensor's name is taken.
Status assemble_matrices(const FolderIndex& index, WeightStore& weights, PlaneSets sets = PlaneSets::kBase);

/// The matrices that have their refinement now.
std::set<std::string, std::less<>> refined_matrices(const WeightStore& weights);
/// Gives every matrix that lacks it its refinement, whose arrays `refinement` holds (Loading::refinement). Between steps. After an error
/// `weights` is as it was.
Status attach_refinement(const FolderIndex& index, WeightStore refinement, WeightStore& weights);
/// Takes refinements away, whole matrices in the index's order (give_back), until at least `n_bytes` are free; returns how many that were.
/// Between steps.
uint64_t drop_refinement(const FolderIndex& index, WeightStore& weights, uint64_t n_bytes = UINT64_MAX);

}  // namespace sb
