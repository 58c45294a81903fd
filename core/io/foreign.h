// Checkpoints that other quantisers wrote: a Hugging Face folder whose config.json has a quantization_config becomes stored types of ours
// as it loads, without loss (docs/formats.md §4).
//
// GPTQ (Frantar et al. 2022; layout of AutoGPTQ and GPTQModel), module X with N outputs, K inputs, groups of inputs with one scale:
//   X.qweight I32 [K/8, N]: input 8i + j of an output in bits 4j of word i      X.scales F16, BF16 or F32 [groups, N]
//   X.qzeros  I32 [groups, N/8]: output 8i + j in bits 4j of word i             X.g_idx I32 [K]: the group of each input; may be absent
//   w = scale · (q − zero); "gptq" stores the zero less one (mod 16), "gptq_v2" as it is.
// AWQ (Lin et al. 2023; AutoAWQ's "gemm"): X.qweight I32 [K, N/8], X.qzeros I32 [groups, N/8], X.scales [groups, N]; output 8i + {0, 2, 4,
//   6, 1, 3, 5, 7}[j] in bits 4j of word i; zeros as they are.
// BitNet (Ma et al. 2024; transformers' integration): X.weight U8 [N/4, K] with output i·N/4 + r in bits 2i of row r, less one;
//   X.weight_scale of one element, by which a "bitlinear" divides and an "autobitlinear" multiplies.
#pragma once

#include <optional>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "io/weights.h"

namespace sb {

/// What a quantization_config says of its tensors.
struct ForeignScheme {
  Status (*convert)(const ForeignScheme& scheme, WeightStore& weights, bool shapes_only) = nullptr;
  int64_t group_size = 0;     // inputs a scale; 0: all of a row
  bool one_less = false;      // zeros are stored less one
  bool is_symmetric = false;  // all zeros are 8, says the file
  bool is_reordered = false;  // inputs are not in their groups' order, says the file
  bool divides = false;       // a weight is divided by the scale
};

/// The scheme of a folder's config.json; nothing where its weights are ordinary ones, or our own.
/// Errors: kQuantisationUnsupported {file, what} for another method, another number of bits, another packing.
Result<std::optional<ForeignScheme>> foreign_scheme(const Json& config, std::string_view file);

/// Makes the tensors X.weight of a loaded folder's modules, and takes away what they were made of.
///
/// 4-bit groups become Q4_0 where every zero is 8, else Q5_0, whose 32 levels hold q − zero for any zero: exact. Where inputs of a block of
/// 32 are of different groups (act-order), the rows are no multiple of 32, or a scale is no half, they become float32. Ternary weights
/// become two planes.
/// With `shapes_only`, blocks are empty, and what a look at the numbers would decide is taken from the file's word.
/// Errors: kTensorMissing, kShapeMismatch, kModelCorrupt (types, a group or a code out of range), kMemoryExhausted.
Status convert_foreign(const ForeignScheme& scheme, WeightStore& weights, bool shapes_only);

}  // namespace sb
