#include "nn/blocks.h"

#include "formats/decode.h"

namespace sb {

Ref weight(Plan& plan, const Weights& at, std::string_view name) {
  const WeightTensor* tensor = at.tensor(name);
  if (!tensor) return plan.fail(Error(Code::kTensorMissing, {{"file", at.store().file()}, {"tensor", at.full_name(name)}}));
  return plan.weight(tensor->view(), at.path(name));
}

Ref embedding(Plan& plan, const Weights& at, Embed op) { return embed(plan, weight(plan, at), plan.ids(), op); }

Ref linear(Plan& plan, Ref x, const Weights& at) {
  return matmul(plan, x, weight(plan, at), at.has("bias") ? weight(plan, at, "bias") : Ref{});
}

std::vector<Ref> linears(Plan& plan, Ref x, std::initializer_list<Weights> at) {
  std::vector<const WeightTensor*> tensors;
  bool is_one = true;
  int64_t n_rows = 0;
  for (const Weights& w : at) {
    const WeightTensor* tensor = w.tensor("weight");
    if (!tensor) return std::vector<Ref>(at.size(), weight(plan, w));  // the error sticks to the plan
    is_one = is_one && tensor->planes && tensor->shape.rank() == 2 && tensor->shape[1] == (*at.begin()).tensor("weight")->shape[1] &&
             tensor->planes == (*at.begin()).tensor("weight")->planes &&
             tensor->first_row == (*at.begin()).tensor("weight")->first_row + n_rows;
    n_rows += tensor->shape.rank() == 2 ? tensor->shape[0] : 0;
    tensors.push_back(tensor);
  }
  std::vector<Ref> out;
  if (!is_one) {
    for (const Weights& w : at) out.push_back(linear(plan, x, w));
    return out;
  }
  TensorView whole = tensors[0]->view();
  whole.shape = {n_rows, tensors[0]->shape[1]};
  std::vector<float> bias;
  int64_t first = 0;
  for (const Weights& w : at) {
    const int64_t n = w.tensor("weight")->shape[0];
    if (const WeightTensor* b = w.tensor("bias")) {
      if (b->shape != Shape{n}) return std::vector<Ref>(at.size(), linear(plan, x, w));
      bias.resize(size_t(n_rows));
      decode_row(b->dtype, b->view().data, bias.data() + first, n);
    }
    first += n;
  }
  const Ref y = matmul(plan, x, plan.weight(whole), bias.empty() ? Ref{} : plan.constant(std::move(bias)));
  first = 0;
  for (const WeightTensor* tensor : tensors) {
    out.push_back(y ? plan.columns(y, first, tensor->shape[0]) : y);
    first += tensor->shape[0];
  }
  return out;
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
