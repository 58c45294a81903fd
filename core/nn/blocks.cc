#include "nn/blocks.h"

namespace sb {

Ref weight(Plan& plan, const Weights& at, std::string_view name) {
  const WeightTensor* tensor = at.tensor(name);
  if (!tensor) return plan.fail(Error(Code::kTensorMissing, {{"file", at.store().file()}, {"tensor", at.full_name(name)}}));
  return plan.weight(tensor->view());
}

Ref embedding(Plan& plan, const Weights& at, Embed op) { return embed(plan, weight(plan, at), plan.ids(), op); }

Ref linear(Plan& plan, Ref x, const Weights& at) {
  return matmul(plan, x, weight(plan, at), at.has("bias") ? weight(plan, at, "bias") : Ref{});
}

Ref rms_norm(Plan& plan, Ref x, const Weights& at, double eps, float offset) {
  return rms_norm(plan, x, weight(plan, at), RmsNorm{float(eps), offset});
}

Ref layer_norm(Plan& plan, Ref x, const Weights& at, double eps) {
  return layer_norm(plan, x, weight(plan, at), weight(plan, at, "bias"), LayerNorm{float(eps)});
}

Ref cached_attention(Plan& plan, Ref q, Ref k, Ref v, Attention op) {
  for (Ref part : {k, v}) {
    const Shape row = {plan.n_tokens(), int64_t(op.n_kv_heads) * op.head_dim};
    if (part && plan.shape(part) != row) {
      return plan.fail(Error(Code::kShapeMismatch,
                             {{"what", "Attention's keys or values"}, {"shape", plan.shape(part).text()}, {"expected", row.text()}}));
    }
  }
  cache_write(plan, k, {op.layer, KvPart::kKeys});
  cache_write(plan, v, {op.layer, KvPart::kValues});
  return attention(plan, q, op);
}

}  // namespace sb
