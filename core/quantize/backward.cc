#include "quantize/backward.h"

#include <algorithm>
#include <cmath>

#include "device/cpu/quantize_kernels.h"
#include "formats/planes.h"

namespace sb {
namespace {

struct Backward {
  const OpViews& f;
  const OpGradients& g;
  ThreadPool& pool;

  int64_t n_rows() const { return g.out.shape[0]; }
  int64_t n_columns() const { return g.out.shape[1]; }
  const float* dy(int64_t t) const { return g.out.row<float>(t); }
  const float* x(size_t input, int64_t t) const { return f.in[input].row<float>(t); }
  float* dx(size_t input, int64_t t) const { return g.in[input].data ? g.in[input].row<float>(t) : nullptr; }

  /// fn(begin, end) over shares of n items, multiples of `grain`.
  template <class Fn>
  void shares(int64_t n, int64_t grain, Fn fn) const {
    const int64_t n_grains = (n + grain - 1) / grain;
    pool.run([&](int thread) {
      const int64_t begin = n_grains * thread / pool.size() * grain, end = n_grains * (thread + 1) / pool.size() * grain;
      if (begin < std::min(n, end)) fn(begin, std::min(n, end));
    });
  }
  /// dx[t][i] += derivative(t, i) · dy[t][i].
  template <class Fn>
  void elementwise(size_t input, Fn derivative) const {
    if (!g.in[input].data) return;
    shares(n_rows(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const float* from = dy(t);
        float* to = dx(input, t);
        for (int64_t i = 0; i < n_columns(); ++i) to[i] += derivative(t, i) * from[i];
      }
    });
  }
};

struct ActivationValue {
  float y, derivative;
};
ActivationValue activation(Activation act, float x) {
  constexpr float kRootTwoOverPi = 0.7978845608f, kOneOverRootTwoPi = 0.3989422804f, kOneOverRootTwo = 0.7071067812f;
  switch (act) {
    case Activation::kSilu: {
      const float s = 1 / (1 + std::exp(-x));
      return {x * s, s * (1 + x * (1 - s))};
    }
    case Activation::kGeluTanh: {
      const float t = std::tanh(kRootTwoOverPi * (x + 0.044715f * x * x * x));
      return {0.5f * x * (1 + t), 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kRootTwoOverPi * (1 + 3 * 0.044715f * x * x)};
    }
    case Activation::kGeluErf: {
      const float share = 0.5f * (1 + std::erf(x * kOneOverRootTwo));
      return {x * share, share + x * kOneOverRootTwoPi * std::exp(-0.5f * x * x)};
    }
    case Activation::kRelu:
      return x > 0 ? ActivationValue{x, 1} : ActivationValue{0, 0};
  }
  return {};
}

template <class O>
Status back(const O& op, const Backward&) {
  return err(Code::kOpUnsupported, {{"device", "backward"}, {"op", op_name(Op(op))}, {"dtype", dtype_name(Dtype::kF32)}});
}
/// Constants and frozen tables, and the cache, whose gradient attention gives to the values written there.
Status back(const Embed&, const Backward&) { return {}; }
Status back(const RopeTable&, const Backward&) { return {}; }
Status back(const CacheWrite&, const Backward&) { return {}; }

// dx += dy · W, db += Σ_t dy.
Status back(const MatMul& op, const Backward& b) {
  const TensorView& w = b.f.in[1];  // [N, K]
  if (w.dtype != Dtype::kF32)
    return err(Code::kOpUnsupported, {{"device", "backward"}, {"op", op_name(Op(op))}, {"dtype", dtype_name(w.dtype)}});
  if (b.g.in[0].data) {
    b.shares(b.n_rows(), 6, [&](int64_t begin, int64_t end) {
      quantize_kernels().product({.a = b.dy(begin),
                                  .a_row = b.g.out.row_bytes / 4,
                                  .a_step = 1,
                                  .b = w.row<float>(0),
                                  .b_row = w.row_bytes / 4,
                                  .c = b.dx(0, begin),
                                  .c_row = b.g.in[0].row_bytes / 4,
                                  .n_sum = w.shape[0],
                                  .n_rows = end - begin,
                                  .n_columns = w.shape[1]});
    });
  }
  if (float* bias = b.dx(2, 0)) {
    for (int64_t t = 0; t < b.n_rows(); ++t) {
      for (int64_t n = 0; n < b.n_columns(); ++n) bias[n] += b.dy(t)[n];
    }
  }
  return {};
}

// y = x̂·(o + g) with x̂ = x·s, s = 1/√(mean(x²) + eps): dx += s·(u − x̂·mean(u·x̂)) with u = dy·(o + g); dg += Σ dy·x̂.
Status back(const RmsNorm& op, const Backward& b) {
  const float* gain = b.x(1, 0);
  const int64_t width = b.f.in[1].shape[-1], n_runs = b.n_columns() / width;
  std::vector<float> scales(size_t(b.n_rows() * n_runs));
  b.shares(b.n_rows() * n_runs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / n_runs, first = i % n_runs * width;
      const float *x = b.x(0, t) + first, *dy = b.dy(t) + first;
      double squares = 0, along = 0;
      for (int64_t j = 0; j < width; ++j) {
        squares += double(x[j]) * double(x[j]);
        along += double(dy[j] * (op.offset + gain[j])) * double(x[j]);
      }
      const double scale = 1 / std::sqrt(squares / double(width) + double(op.eps));
      scales[size_t(i)] = float(scale);
      if (!b.g.in[0].data) continue;
      float* dx = b.dx(0, t) + first;
      const float s = float(scale), shrink = float(along * scale * scale * scale / double(width));
      for (int64_t j = 0; j < width; ++j) dx[j] += s * dy[j] * (op.offset + gain[j]) - shrink * x[j];
    }
  });
  if (float* dg = b.dx(1, 0)) {
    for (int64_t i = 0; i < b.n_rows() * n_runs; ++i) {
      const int64_t t = i / n_runs, first = i % n_runs * width;
      const float *x = b.x(0, t) + first, *dy = b.dy(t) + first;
      for (int64_t j = 0; j < width; ++j) dg[j] += dy[j] * x[j] * scales[size_t(i)];
    }
  }
  return {};
}

// y = x̂·g + b with x̂ = (x − mean)·s: dx += s·(u − mean(u) − x̂·mean(u·x̂)) with u = dy·g; dg += Σ dy·x̂, db += Σ dy.
Status back(const LayerNorm& op, const Backward& b) {
  const float* gain = b.x(1, 0);
  const int64_t width = b.n_columns();
  std::vector<float> normed(size_t(b.n_rows() * width));
  b.shares(b.n_rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *x = b.x(0, t), *dy = b.dy(t);
      float* hat = normed.data() + t * width;
      double mean = 0, squares = 0, sum = 0, along = 0;
      for (int64_t j = 0; j < width; ++j) mean += double(x[j]);
      mean /= double(width);
      for (int64_t j = 0; j < width; ++j) squares += (double(x[j]) - mean) * (double(x[j]) - mean);
      const double scale = 1 / std::sqrt(squares / double(width) + double(op.eps));
      for (int64_t j = 0; j < width; ++j) {
        hat[j] = float((double(x[j]) - mean) * scale);
        sum += double(dy[j] * gain[j]);
        along += double(dy[j] * gain[j]) * double(hat[j]);
      }
      if (!b.g.in[0].data) continue;
      float* dx = b.dx(0, t);
      const float s = float(scale), shift = float(sum / double(width)), shrink = float(along / double(width));
      for (int64_t j = 0; j < width; ++j) dx[j] += s * (dy[j] * gain[j] - shift - hat[j] * shrink);
    }
  });
  for (int64_t t = 0; t < b.n_rows(); ++t) {
    const float *hat = normed.data() + t * width, *dy = b.dy(t);
    if (float* dg = b.dx(1, 0)) {
      for (int64_t j = 0; j < width; ++j) dg[j] += dy[j] * hat[j];
    }
    if (float* db = b.dx(2, 0)) {
      for (int64_t j = 0; j < width; ++j) db[j] += dy[j];
    }
  }
  return {};
}

// A rotation goes back by its transpose.
Status back(const Rope& op, const Backward& b) {
  if (!b.g.in[0].data) return {};
  const int64_t n = b.f.in[1].shape[1] / 2;
  b.shares(b.n_rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *cos = b.x(1, t), *sin = cos + n;
      for (int64_t head = 0; head < b.n_columns(); head += op.head_dim) {
        const float* dy = b.dy(t) + head;
        float* dx = b.dx(0, t) + head;
        for (int64_t i = 2 * n; i < op.head_dim; ++i) dx[i] += dy[i];
        for (int64_t i = 0; i < n; ++i) {
          const int64_t first = op.style == RopeStyle::kHalves ? i : 2 * i, second = op.style == RopeStyle::kHalves ? i + n : 2 * i + 1;
          dx[first] += dy[first] * cos[i] + dy[second] * sin[i];
          dx[second] += dy[second] * cos[i] - dy[first] * sin[i];
        }
      }
    }
  });
  return {};
}

/// Attention's backward for one query head. The scores are computed again, kQueries rows at a time (Dao et al. 2022, without the tiles
/// along the keys: rows of scores are short here).
class AttentionHead {
 public:
  AttentionHead(const Attention& op, const Backward& b, int64_t head) : op_(op), b_(b), head_(head) {}

  /// dk, dv [T, dh] of this head alone.
  void run(std::vector<float>& dk, std::vector<float>& dv) {
    const int64_t n_tokens = b_.n_rows(), dh = op_.head_dim;
    kt_ = transposed(1), vt_ = transposed(2);
    dk.assign(size_t(n_tokens * dh), 0.0f), dv.assign(size_t(n_tokens * dh), 0.0f);
    for (int64_t t = 0; t < n_tokens; t += kQueries) rows(t, std::min(n_tokens, t + kQueries), dk.data(), dv.data());
  }

 private:
  static constexpr int64_t kQueries = 64;

  int64_t kv_column() const { return head_ / (op_.n_heads / op_.n_kv_heads) * op_.head_dim; }
  int64_t first_seen(int64_t t) const { return op_.window > 0 ? std::max<int64_t>(0, t + 1 - op_.window) : 0; }

  std::vector<float> transposed(size_t input) const {  // [dh, T]
    const int64_t n_tokens = b_.n_rows();
    std::vector<float> out(size_t(op_.head_dim * n_tokens));
    for (int64_t t = 0; t < n_tokens; ++t) {
      for (int64_t i = 0; i < op_.head_dim; ++i) out[size_t(i * n_tokens + t)] = b_.x(input, t)[kv_column() + i];
    }
    return out;
  }

  void rows(int64_t begin, int64_t end, float* dk, float* dv) {
    const int64_t n_tokens = b_.n_rows(), dh = op_.head_dim, first = first_seen(begin), n = end - first, n_rows = end - begin;
    const float *q = b_.x(0, begin) + head_ * dh, *dy = b_.dy(begin) + head_ * dh, *k = b_.x(1, first) + kv_column();
    const int64_t q_row = b_.f.in[0].row_bytes / 4, dy_row = b_.g.out.row_bytes / 4, k_row = b_.f.in[1].row_bytes / 4;
    const auto product = quantize_kernels().product;
    p_.assign(size_t(n_rows * n), 0.0f), ds_.assign(size_t(n_rows * n), 0.0f);
    product({q, q_row, 1, kt_.data() + first, n_tokens, p_.data(), n, dh, n_rows, n});     // q·kᵀ
    product({dy, dy_row, 1, vt_.data() + first, n_tokens, ds_.data(), n, dh, n_rows, n});  // dp = dy·vᵀ
    for (int64_t r = 0; r < n_rows; ++r)
      softmax_back(p_.data() + r * n, ds_.data() + r * n, n, first_seen(begin + r) - first, begin + r + 1 - first);
    if (b_.g.in[0].data) { product({ds_.data(), n, 1, k, k_row, b_.dx(0, begin) + head_ * dh, b_.g.in[0].row_bytes / 4, n, n_rows, dh}); }
    product({ds_.data(), 1, n, q, q_row, dk + first * dh, dh, n_rows, n, dh});
    product({p_.data(), 1, n, dy, dy_row, dv + first * dh, dh, n_rows, n, dh});
  }

  /// Scores to probabilities, and dL/dp to dL/d(q·k): row [n], of which [from, to) is seen.
  void softmax_back(float* p, float* ds, int64_t n, int64_t from, int64_t to) const {
    float top = -INFINITY;
    for (int64_t j = from; j < to; ++j) {
      p[j] *= op_.scale;
      if (op_.softcap > 0) p[j] = op_.softcap * std::tanh(p[j] / op_.softcap);
      top = std::max(top, p[j]);
    }
    double total = 0, along = 0;
    capped_.assign(p, p + n);
    for (int64_t j = from; j < to; ++j) total += double(p[j] = std::exp(p[j] - top));
    for (int64_t j = from; j < to; ++j) {
      p[j] = float(double(p[j]) / total);
      along += double(p[j]) * double(ds[j]);
    }
    for (int64_t j = from; j < to; ++j) {
      ds[j] = p[j] * (ds[j] - float(along)) * op_.scale;
      if (op_.softcap > 0) ds[j] *= 1 - capped_[size_t(j)] * capped_[size_t(j)] / (op_.softcap * op_.softcap);
    }
    std::fill(p, p + from, 0.0f), std::fill(p + to, p + n, 0.0f);
    std::fill(ds, ds + from, 0.0f), std::fill(ds + to, ds + n, 0.0f);
  }

  const Attention& op_;
  const Backward& b_;
  int64_t head_;
  std::vector<float> kt_, vt_, p_, ds_;
  mutable std::vector<float> capped_;
};

Status back(const Attention& op, const Backward& b) {
  const size_t n_heads = size_t(op.n_heads);
  std::vector<std::vector<float>> dk(n_heads), dv(n_heads);
  b.pool.run([&](int thread) {
    for (size_t h = size_t(thread); h < n_heads; h += size_t(b.pool.size())) AttentionHead(op, b, int64_t(h)).run(dk[h], dv[h]);
  });
  const int64_t group = op.n_heads / op.n_kv_heads, dh = op.head_dim;
  auto gather = [&](size_t input, const std::vector<std::vector<float>>& from) {
    if (!b.g.in[input].data) return;
    for (size_t h = 0; h < n_heads; ++h) {
      for (int64_t t = 0; t < b.n_rows(); ++t) {
        float* to = b.dx(input, t) + int64_t(h) / group * dh;
        for (int64_t i = 0; i < dh; ++i) to[i] += from[h][size_t(t * dh + i)];
      }
    }
  };
  gather(1, dk);
  gather(2, dv);
  return {};
}

Status back(const Glu& op, const Backward& b) {
  b.shares(b.n_rows(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float *gate = b.x(0, t), *up = b.x(1, t), *dy = b.dy(t);
      float *to_gate = b.dx(0, t), *to_up = b.dx(1, t);
      for (int64_t i = 0; i < b.n_columns(); ++i) {
        const ActivationValue a = activation(op.act, gate[i]);
        if (to_gate) to_gate[i] += a.derivative * up[i] * dy[i];
        if (to_up) to_up[i] += a.y * dy[i];
      }
    }
  });
  return {};
}
Status back(const Activate& op, const Backward& b) {
  b.elementwise(0, [&](int64_t t, int64_t i) { return activation(op.act, b.x(0, t)[i]).derivative; });
  return {};
}
Status back(const Add&, const Backward& b) {
  for (size_t input : {0, 1}) b.elementwise(input, [](int64_t, int64_t) { return 1.0f; });
  return {};
}
Status back(const SoftCap& op, const Backward& b) {
  b.elementwise(0, [&](int64_t t, int64_t i) {
    const float y = std::tanh(b.x(0, t)[i] / op.cap);
    return 1 - y * y;
  });
  return {};
}
Status back(const LastRow&, const Backward& b) {
  if (!b.g.in[0].data) return {};
  float* to = b.dx(0, b.g.in[0].shape[0] - 1);
  for (int64_t i = 0; i < b.n_columns(); ++i) to[i] += b.dy(0)[i];
  return {};
}

}  // namespace

Status run_backward(const Op& op, const OpViews& forward, const OpGradients& gradients, ThreadPool& pool) {
  return std::visit([&](const auto& o) { return back(o, Backward{forward, gradients, pool}); }, op);
}

Result<ReversibleStretch> ReversibleStretch::compile(const ModelGraph& graph, Device& device, const Pass& pass,
                                                     const Substitutes& substitutes) {
  ReversibleStretch s;
  SB_TRY(s.stretch_, Stretch::compile(graph, device, pass, substitutes, {.record = &s.plan_}));
  const std::vector<Value>& values = s.plan_->values();
  s.floats_.resize(values.size());
  s.gradients_.resize(values.size());
  s.values_.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const Value& v = values[i];
    if (v.kind == ValueKind::kConstant) s.floats_[i] = v.constant;
    if (v.kind != ValueKind::kWeight || v.shape.rank() != 1 || v.dtype == Dtype::kF32) continue;
    s.floats_[i].resize(size_t(v.shape[0]));
    decode_row(v.weight, 0, s.floats_[i].data(), v.shape[0]);
  }
  return s;
}

int32_t ReversibleStretch::root(int32_t value) const {
  while (plan_->values()[size_t(value)].alias_of >= 0) value = plan_->values()[size_t(value)].alias_of;
  return value;
}

TensorView ReversibleStretch::view(int32_t value) const {
  const Value& v = plan_->values()[size_t(value)];
  if (!floats_[size_t(value)].empty()) return vector_view(floats_[size_t(value)]);
  if (v.kind == ValueKind::kWeight) return v.weight;
  if (v.kind != ValueKind::kActivation) return {};
  const int32_t whole = root(value);
  int64_t first = 0;
  for (int32_t i = value; plan_->values()[size_t(i)].alias_of >= 0; i = plan_->values()[size_t(i)].alias_of)
    first += plan_->values()[size_t(i)].first_column;
  return {reinterpret_cast<const std::byte*>(values_[size_t(whole)] + first),
          Dtype::kF32,
          v.shape,
          4 * plan_->values()[size_t(whole)].shape[-1],
          nullptr,
          0};
}

MutableTensorView ReversibleStretch::gradient_view(int32_t value) {
  const Value& v = plan_->values()[size_t(value)];
  const int32_t whole = root(value);
  std::vector<float>& gradient = gradients_[size_t(whole)];
  int64_t first = 0;
  for (int32_t i = value; plan_->values()[size_t(i)].alias_of >= 0; i = plan_->values()[size_t(i)].alias_of)
    first += plan_->values()[size_t(i)].first_column;
  return {reinterpret_cast<std::byte*>(gradient.data() + first), Dtype::kF32, v.shape, 4 * plan_->values()[size_t(whole)].shape[-1]};
}

Status ReversibleStretch::back(std::string_view name, std::span<const float> gradient, GradientSink& sink, std::span<float> dx,
                               ThreadPool& pool) {
  const std::vector<Value>& values = plan_->values();
  int32_t end = -1, x = -1;
  for (const Output& output : plan_->outputs()) {
    if (output.name == name) end = output.value;
  }
  SB_ASSERT(end >= 0 && values[size_t(end)].alias_of < 0 && values[size_t(end)].shape.elements() == int64_t(gradient.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].kind != ValueKind::kActivation || values[i].alias_of >= 0) continue;
    values_[i] = stretch_.output("value." + std::to_string(i)).data();
    gradients_[i].assign(size_t(values[i].shape.elements()), 0.0f);
    if (values[i].is_input) x = int32_t(i);
  }
  std::copy(gradient.begin(), gradient.end(), gradients_[size_t(end)].begin());

  // Who reads an activation: products alone, or others too.
  std::vector<std::vector<std::string_view>> products(values.size());
  std::vector<bool> is_shared(values.size(), false);
  for (const Node& node : plan_->nodes()) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] < 0 || values[size_t(node.inputs[i])].kind != ValueKind::kActivation) continue;
      const int32_t read = node.inputs[i];
      if (std::holds_alternative<MatMul>(node.op) && values[size_t(read)].alias_of < 0) {
        products[size_t(read)].push_back(values[size_t(node.inputs[1])].name);
      } else {
        is_shared[size_t(root(read))] = true;
      }
    }
  }
  for (auto node = plan_->nodes().rbegin(); node != plan_->nodes().rend(); ++node) {
    if (node->output < 0) continue;
    const size_t out = size_t(node->output);
    if (!products[out].empty() && !is_shared[out]) sink.input(products[out], view(node->output), gradient_view(node->output));
    Node seen = *node;
    if (const Attention* op = std::get_if<Attention>(&node->op)) {
      for (const Node& writer : plan_->nodes()) {
        const CacheWrite* write = std::get_if<CacheWrite>(&writer.op);
        if (write && write->layer == op->layer) seen.inputs[write->part == KvPart::kKeys ? 1 : 2] = writer.inputs[0];
      }
    }
    OpViews forward;
    OpGradients gradients;
    gradients.out = gradient_view(node->output);
    for (size_t i = 0; i < seen.inputs.size(); ++i) {
      if (seen.inputs[i] < 0) continue;
      const Value& v = values[size_t(seen.inputs[i])];
      forward.has[i] = true;
      forward.in[i] = view(seen.inputs[i]);
      if (v.kind == ValueKind::kActivation) {
        gradients.in[i] = gradient_view(seen.inputs[i]);
      } else if (v.kind == ValueKind::kWeight && v.shape.rank() == 1) {
        const std::span<float> to = sink.vector(v.name);
        if (!to.empty()) gradients.in[i] = {reinterpret_cast<std::byte*>(to.data()), Dtype::kF32, v.shape, int64_t(to.size()) * 4};
      }
    }
    if (std::holds_alternative<MatMul>(node->op))
      sink.product(values[size_t(node->inputs[1])].name, view(node->output), forward.in[2], gradients.out);
    SB_OK(run_backward(node->op, forward, gradients, pool));
  }
  if (x >= 0 && !dx.empty()) std::copy(gradients_[size_t(x)].begin(), gradients_[size_t(x)].end(), dx.begin());
  return {};
}

}  // namespace sb
