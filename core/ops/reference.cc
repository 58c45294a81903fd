#include "ops/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "formats/decode.h"
#include "formats/planes.h"

namespace sb {
namespace {

std::vector<float> decoded_row(const TensorView& w, int64_t r) {
  std::vector<float> row(size_t(w.shape[-1]));
  decode_row(w, r, row.data(), w.shape[-1]);
  return row;
}

double cached(KvPages& kv, int64_t token, int32_t layer, int part, int64_t column) {
  const std::byte* at = kv.at(token, layer, part, column);
  return kv.half() ? half_to_float(*reinterpret_cast<const uint16_t*>(at)) : *reinterpret_cast<const float*>(at);
}

void run(const Embed& op, const OpViews& v, const Scalars& s) {
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    std::vector<float> row = decoded_row(v.in[0], op.by_position ? s.position + t : s.ids[size_t(t)]);
    for (int64_t i = 0; i < v.out.shape[1]; ++i) v.out.row<float>(t)[i] = op.scale * row[size_t(i)];
  }
}

void run(const MatMul&, const OpViews& v, const Scalars&) {
  const TensorView &x = v.in[0], &w = v.in[1];
  for (int64_t n = 0; n < w.shape[0]; ++n) {
    std::vector<float> row = decoded_row(w, n);
    for (int64_t t = 0; t < v.out.shape[0]; ++t) {
      double sum = v.has[2] ? decoded_row({v.in[2].data, v.in[2].dtype, {v.in[2].shape[0]}, 0}, 0)[size_t(n)] : 0.0;
      for (int64_t k = 0; k < w.shape[1]; ++k) sum += double(x.row<float>(t)[k]) * double(row[size_t(k)]);
      v.out.row<float>(t)[n] = float(sum);
    }
  }
}

void run(const RmsNorm& op, const OpViews& v, const Scalars&) {
  std::vector<float> g = decoded_row(v.in[1], 0);
  const int64_t width = int64_t(g.size());
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    for (int64_t first = 0; first < v.out.shape[1]; first += width) {
      const float* x = v.in[0].row<float>(t) + first;
      double squares = 0;
      for (int64_t i = 0; i < width; ++i) squares += double(x[i]) * double(x[i]);
      const double scale = 1.0 / std::sqrt(squares / double(width) + double(op.eps));
      for (int64_t i = 0; i < width; ++i) v.out.row<float>(t)[first + i] = float(x[i] * scale * (double(op.offset) + double(g[size_t(i)])));
    }
  }
}

void run(const LayerNorm& op, const OpViews& v, const Scalars&) {
  std::vector<float> g = decoded_row(v.in[1], 0), b = decoded_row(v.in[2], 0);
  const int64_t width = v.out.shape[1];
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    const float* x = v.in[0].row<float>(t);
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < width; ++i) mean += x[i];
    mean /= double(width);
    for (int64_t i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double scale = 1.0 / std::sqrt(variance / double(width) + double(op.eps));
    for (int64_t i = 0; i < width; ++i) v.out.row<float>(t)[i] = float((x[i] - mean) * scale * double(g[size_t(i)]) + double(b[size_t(i)]));
  }
}

void run(const RopeTable&, const OpViews& v, const Scalars& s) {
  const int64_t n = v.in[0].shape[0];
  const float* frequency = v.in[0].row<float>(0);
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    for (int64_t i = 0; i < n; ++i) {
      const double angle = double(s.position + t) * double(frequency[i]);
      v.out.row<float>(t)[i] = float(std::cos(angle));
      v.out.row<float>(t)[n + i] = float(std::sin(angle));
    }
  }
}

void run(const Rope& op, const OpViews& v, const Scalars&) {
  const int64_t n = v.in[1].shape[1] / 2;
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    const float* table = v.in[1].row<float>(t);
    for (int64_t head = 0; head < v.out.shape[1]; head += op.head_dim) {
      const float* x = v.in[0].row<float>(t) + head;
      float* y = v.out.row<float>(t) + head;
      for (int64_t i = 2 * n; i < op.head_dim; ++i) y[i] = x[i];
      for (int64_t i = 0; i < n; ++i) {
        const int64_t a = op.style == RopeStyle::kHalves ? i : 2 * i, b = op.style == RopeStyle::kHalves ? i + n : 2 * i + 1;
        const double xa = x[a], xb = x[b], cos = table[i], sin = table[n + i];
        y[a] = float(xa * cos - xb * sin);
        y[b] = float(xa * sin + xb * cos);
      }
    }
  }
}

void run(const CacheWrite& op, const OpViews& v, const Scalars& s) {
  const TensorView& x = v.in[0];
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    for (int64_t i = 0; i < x.shape[1]; ++i) {
      std::byte* at = s.kv->at(s.position + t, op.layer, int(op.part), i);
      if (s.kv->half()) {
        *reinterpret_cast<uint16_t*>(at) = float_to_half(x.row<float>(t)[i]);
      } else {
        *reinterpret_cast<float*>(at) = x.row<float>(t)[i];
      }
    }
  }
}

void run(const Attention& op, const OpViews& v, const Scalars& s) {
  const int64_t group = op.n_heads / op.n_kv_heads;
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    const int64_t end = s.position + t + 1, begin = op.window > 0 ? std::max<int64_t>(0, end - op.window) : 0;
    for (int64_t h = 0; h < op.n_heads; ++h) {
      const float* q = v.in[0].row<float>(t) + h * op.head_dim;
      const int64_t at = h / group * op.head_dim;
      std::vector<double> p(size_t(end - begin));
      double highest = -INFINITY, total = 0;
      for (int64_t j = begin; j < end; ++j) {
        double score = 0;
        for (int64_t i = 0; i < op.head_dim; ++i) score += double(q[i]) * cached(*s.kv, j, op.layer, 0, at + i);
        score *= double(op.scale);
        if (op.softcap > 0) score = double(op.softcap) * std::tanh(score / double(op.softcap));
        p[size_t(j - begin)] = score;
        highest = std::max(highest, score);
      }
      for (double& score : p) total += score = std::exp(score - highest);
      for (int64_t i = 0; i < op.head_dim; ++i) {
        double sum = 0;
        for (int64_t j = begin; j < end; ++j) sum += p[size_t(j - begin)] * cached(*s.kv, j, op.layer, 1, at + i);
        v.out.row<float>(t)[h * op.head_dim + i] = float(sum / total);
      }
    }
  }
}

template <class F>
void each(const OpViews& v, F f) {
  for (int64_t t = 0; t < v.out.shape[0]; ++t) {
    for (int64_t i = 0; i < v.out.shape[1]; ++i) v.out.row<float>(t)[i] = float(f(t, i));
  }
}

void run(const Glu& op, const OpViews& v, const Scalars&) {
  each(v, [&](int64_t t, int64_t i) { return activation_reference(op.act, v.in[0].row<float>(t)[i]) * double(v.in[1].row<float>(t)[i]); });
}
void run(const Activate& op, const OpViews& v, const Scalars&) {
  each(v, [&](int64_t t, int64_t i) { return activation_reference(op.act, v.in[0].row<float>(t)[i]); });
}
void run(const Add&, const OpViews& v, const Scalars&) {
  each(v, [&](int64_t t, int64_t i) { return double(v.in[0].row<float>(t)[i]) + double(v.in[1].row<float>(t)[i]); });
}
void run(const SoftCap& op, const OpViews& v, const Scalars&) {
  each(v, [&](int64_t t, int64_t i) { return double(op.cap) * std::tanh(double(v.in[0].row<float>(t)[i]) / double(op.cap)); });
}
void run(const LastRow&, const OpViews& v, const Scalars&) {
  each(v, [&](int64_t, int64_t i) { return v.in[0].row<float>(v.in[0].shape[0] - 1)[i]; });
}

}  // namespace

double activation_reference(Activation act, double x) {
  switch (act) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));  // Hendrycks & Gimpel 2016
    case Activation::kGeluErf:
      return 0.5 * x * (1 + std::erf(x * 0.7071067811865476));
    case Activation::kRelu:
      return x > 0 ? x : 0;
  }
  return x;
}

void run_reference(const Op& op, const OpViews& views, const Scalars& scalars) {
  std::visit([&](const auto& o) { run(o, views, scalars); }, op);
}

}  // namespace sb
