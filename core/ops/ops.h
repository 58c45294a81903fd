// The ops that models call. Each checks shapes and appends one node; the definition of what it computes stands in device/op.h and, as
// plain code, in its *_reference (ops/reference.h). Errors stick to the plan: kShapeMismatch {what, shape, expected}.
#pragma once

#include "device/plan.h"

namespace sb {

Ref embed(Plan& plan, Ref table, Ref ids, Embed op);            // [V, D], [T] → [T, D]
Ref matmul(Plan& plan, Ref x, Ref w, Ref bias = {});            // [T, K], [N, K], [N] → [T, N]
Ref rms_norm(Plan& plan, Ref x, Ref g, RmsNorm op);             // [T, D], [width] → [T, D]
Ref layer_norm(Plan& plan, Ref x, Ref g, Ref b, LayerNorm op);  // [T, D], [D], [D] → [T, D]
Ref rope_table(Plan& plan, Ref frequencies);                    // [n] → [T, 2n]
Ref rope(Plan& plan, Ref x, Ref table, Rope op);                // [T, H·dh], [T, n_rot] → [T, H·dh]
void cache_write(Plan& plan, Ref x, CacheWrite op);             // [T, K·dh]
Ref attention(Plan& plan, Ref q, Attention op);                 // [T, H·dh] → [T, H·dh]
Ref glu(Plan& plan, Ref gate, Ref up, Glu op);                  // [T, D], [T, D] → [T, D]
Ref activate(Plan& plan, Ref x, Activate op);                   // [T, D] → [T, D]
Ref add(Plan& plan, Ref a, Ref b);                              // [T, D], [T, D] → [T, D]
Ref softcap(Plan& plan, Ref x, float cap);                      // [T, D] → [T, D]
Ref last_row(Plan& plan, Ref x);                                // [T, D] → [1, D]

}  // namespace sb
