// Blocks that families share: an op and the weights it takes, found by their Hugging Face names. A missing tensor sticks to the plan as
// kTensorMissing {file, tensor}.
#pragma once

#include <vector>

#include "io/weights.h"
#include "ops/ops.h"

namespace sb {

/// The tensor `name` under `at`.
Ref weight(Plan& plan, const Weights& at, std::string_view name = "weight");

/// Rows of at.weight [V, D] for the run's token ids, or for its positions.
Ref embedding(Plan& plan, const Weights& at, Embed op = {});  // → [T, D]

/// x · Wᵀ + b with at.weight [N, K] and, where the file has it, at.bias [N].
Ref linear(Plan& plan, Ref x, const Weights& at);  // [T, K] → [T, N]

/// Linear layers that read one x, in order. Where the file keeps their matrices as neighbouring rows of one matrix of sign planes, one
/// product serves them all.
std::vector<Ref> linears(Plan& plan, Ref x, std::initializer_list<Weights> at);  // [T, K] → [T, N] each

/// Root mean square norm by at.weight, over runs of its length: whole rows, or each head.
Ref rms_norm(Plan& plan, Ref x, const Weights& at, double eps, float offset = 0);  // [T, D] → [T, D]

/// Layer norm by at.weight and at.bias.
Ref layer_norm(Plan& plan, Ref x, const Weights& at, double eps);  // [T, D] → [T, D]

/// Attention of q over the cache, after k and v have joined it as the run's newest tokens.
Ref cached_attention(Plan& plan, Ref q, Ref k, Ref v, Attention op);  // [T, H·dh], [T, K·dh], [T, K·dh] → [T, H·dh]

}  // namespace sb
