#include "ops/ops.h"

namespace sb {
namespace {

// The one way to say that shapes do not fit.
Ref mismatch(Plan& plan, std::string_view what, const Shape& shape, const std::string& expected) {
  return plan.fail(Error(Code::kShapeMismatch, {{"what", what}, {"shape", shape.text()}, {"expected", expected}}));
}

bool all(std::initializer_list<Ref> refs) {
  for (Ref r : refs) {
    if (!r) return false;
  }
  return true;
}

}  // namespace

Ref embed(Plan& plan, Ref table, Ref ids, Embed op) {
  if (!all({table, ids})) return {};
  const Shape& t = plan.shape(table);
  if (t.rank() != 2) return mismatch(plan, "The embedding", t, "[vocabulary, width]");
  return plan.add(op, {table, ids}, {plan.n_tokens(), t[1]});
}

Ref matmul(Plan& plan, Ref x, Ref w, Ref bias) {
  if (!all({x, w})) return {};
  const Shape &xs = plan.shape(x), &ws = plan.shape(w);
  if (ws.rank() != 2 || ws[1] != xs[1]) return mismatch(plan, "A linear layer's weight", ws, "[N, " + std::to_string(xs[1]) + "]");
  if (bias && plan.shape(bias) != Shape{ws[0]}) return mismatch(plan, "A linear layer's bias", plan.shape(bias), Shape{ws[0]}.text());
  return plan.add(MatMul{}, {x, w, bias}, {xs[0], ws[0]});
}

Ref rms_norm(Plan& plan, Ref x, Ref g, RmsNorm op) {
  if (!all({x, g})) return {};
  const Shape &xs = plan.shape(x), &gs = plan.shape(g);
  if (gs.rank() != 1 || gs[0] == 0 || xs[1] % gs[0] != 0)
    return mismatch(plan, "A norm's weight", gs, "one that divides " + std::to_string(xs[1]));
  return plan.add(op, {x, g}, xs);
}

Ref layer_norm(Plan& plan, Ref x, Ref g, Ref b, LayerNorm op) {
  if (!all({x, g, b})) return {};
  const Shape& xs = plan.shape(x);
  if (plan.shape(g) != Shape{xs[1]}) return mismatch(plan, "A norm's weight", plan.shape(g), Shape{xs[1]}.text());
  if (plan.shape(b) != Shape{xs[1]}) return mismatch(plan, "A norm's bias", plan.shape(b), Shape{xs[1]}.text());
  return plan.add(op, {x, g, b}, xs);
}

Ref rope_table(Plan& plan, Ref frequencies) {
  if (!frequencies) return {};
  return plan.add(RopeTable{}, {frequencies}, {plan.n_tokens(), 2 * plan.shape(frequencies)[0]});
}

Ref rope(Plan& plan, Ref x, Ref table, Rope op) {
  if (!all({x, table})) return {};
  const Shape xs = plan.shape(x);
  if (op.head_dim <= 0 || xs[1] % op.head_dim != 0 || plan.shape(table)[1] > op.head_dim) {
    return mismatch(plan, "Heads to rotate", xs, "[T, H·" + std::to_string(op.head_dim) + "] with at most that many turned");
  }
  return plan.add(op, {x, table}, xs);
}

void cache_write(Plan& plan, Ref x, CacheWrite op) {
  if (x) plan.add(op, {x}, {});
}

Ref attention(Plan& plan, Ref q, Attention op) {
  if (!q) return {};
  const Shape qs = plan.shape(q);
  if (op.n_kv_heads <= 0 || op.n_heads % op.n_kv_heads != 0 || qs[1] != int64_t(op.n_heads) * op.head_dim) {
    return mismatch(
        plan, "Attention's queries", qs,
        "[T, " + std::to_string(op.n_heads) + "·" + std::to_string(op.head_dim) + "], heads divisible by " + std::to_string(op.n_kv_heads));
  }
  return plan.add(op, {q}, qs);
}

Ref glu(Plan& plan, Ref gate, Ref up, Glu op) {
  if (!all({gate, up})) return {};
  const Shape gs = plan.shape(gate);
  if (gs != plan.shape(up)) return mismatch(plan, "A gated layer's second half", plan.shape(up), gs.text());
  return plan.add(op, {gate, up}, gs);
}

Ref activate(Plan& plan, Ref x, Activate op) {
  if (!x) return {};
  return plan.add(op, {x}, Shape(plan.shape(x)));
}

Ref add(Plan& plan, Ref a, Ref b) {
  if (!all({a, b})) return {};
  const Shape as = plan.shape(a);
  if (as != plan.shape(b)) return mismatch(plan, "A sum's second term", plan.shape(b), as.text());
  return plan.add(Add{}, {a, b}, as);
}

Ref softcap(Plan& plan, Ref x, float cap) {
  if (!x) return {};
  return plan.add(SoftCap{cap}, {x}, Shape(plan.shape(x)));
}

Ref last_row(Plan& plan, Ref x) {
  if (!x) return {};
  return plan.add(LastRow{}, {x}, {1, plan.shape(x)[1]});
}

}  // namespace sb
