// The kernels that walk rows: norms, rotary positions, activations, sums, the embedding's gather.
#pragma once

#include <algorithm>
#include <cmath>

#include "device/cpu/kernel.h"
#include "device/cpu/simd.h"
#include "formats/decode.h"
#include "formats/planes.h"

namespace sb::SB_ISA {

inline void embed(const Step& step, const Scalars& scalars, const Worker& worker) {
  const Embed& op = std::get<Embed>(*step.op);
  const MutableTensorView& y = step.views.out;
  for (int64_t t = worker.part; t < y.shape[0]; t += worker.n_parts) {
    const int64_t row = op.by_position ? scalars.position + t : scalars.ids[size_t(t)];
    decode_row(step.views.in[0], row, y.row<float>(t), y.shape[1]);
    if (op.scale != 1) {
      for (int64_t i = 0; i < y.shape[1]; ++i) y.row<float>(t)[i] *= op.scale;
    }
  }
}

inline void rms_norm(const Step& step, const Scalars&, const Worker& worker) {
  const RmsNorm& op = std::get<RmsNorm>(*step.op);
  const TensorView &x = step.views.in[0], &g = step.views.in[1];
  const int64_t width = g.shape[0], runs = x.shape[1] / width, whole = width / kLanes * kLanes;
  const float* gain = g.row<float>(0);
  for (int64_t i = worker.part; i < x.shape[0] * runs; i += worker.n_parts) {
    const float* from = x.row<float>(i / runs) + i % runs * width;
    float* to = step.views.out.row<float>(i / runs) + i % runs * width;
    F32 squares{};
    for (int64_t j = 0; j < whole; j += kLanes) {
      const F32 v = load<F32>(from + j);
      squares = mul_add(v, v, squares);
    }
    float total = sum(squares);
    for (int64_t j = whole; j < width; ++j) total += from[j] * from[j];
    const float scale = 1.0f / std::sqrt(total / float(width) + op.eps);
    for (int64_t j = 0; j < whole; j += kLanes) store(to + j, load<F32>(from + j) * scale * (load<F32>(gain + j) + op.offset));
    for (int64_t j = whole; j < width; ++j) to[j] = from[j] * scale * (gain[j] + op.offset);
  }
}

inline void layer_norm(const Step& step, const Scalars&, const Worker& worker) {
  const LayerNorm& op = std::get<LayerNorm>(*step.op);
  const TensorView& x = step.views.in[0];
  const int64_t width = x.shape[1], whole = width / kLanes * kLanes;
  const float *gain = step.views.in[1].row<float>(0), *bias = step.views.in[2].row<float>(0);
  for (int64_t t = worker.part; t < x.shape[0]; t += worker.n_parts) {
    const float* from = x.row<float>(t);
    float* to = step.views.out.row<float>(t);
    F32 sums{};
    for (int64_t j = 0; j < whole; j += kLanes) sums += load<F32>(from + j);
    float total = sum(sums);
    for (int64_t j = whole; j < width; ++j) total += from[j];
    const float mean = total / float(width);
    F32 squares{};
    for (int64_t j = 0; j < whole; j += kLanes) {
      const F32 v = load<F32>(from + j) - mean;
      squares = mul_add(v, v, squares);
    }
    float variance = sum(squares);
    for (int64_t j = whole; j < width; ++j) variance += (from[j] - mean) * (from[j] - mean);
    const float scale = 1.0f / std::sqrt(variance / float(width) + op.eps);
    for (int64_t j = 0; j < whole; j += kLanes)
      store(to + j, mul_add((load<F32>(from + j) - mean) * scale, load<F32>(gain + j), load<F32>(bias + j)));
    for (int64_t j = whole; j < width; ++j) to[j] = (from[j] - mean) * scale * gain[j] + bias[j];
  }
}

inline void rope_table(const Step& step, const Scalars& scalars, const Worker& worker) {
  // Once a run, for all layers; double, because a position times a frequency loses its low bits in float.
  const int64_t n = step.views.in[0].shape[0];
  for (int64_t t = worker.part; t < step.views.out.shape[0]; t += worker.n_parts) {
    float* to = step.views.out.row<float>(t);
    for (int64_t i = 0; i < n; ++i) {
      const double angle = double(scalars.position + t) * double(step.views.in[0].row<float>(0)[i]);
      to[i] = float(std::cos(angle));
      to[n + i] = float(std::sin(angle));
    }
  }
}

inline void rope(const Step& step, const Scalars&, const Worker& worker) {
  const Rope& op = std::get<Rope>(*step.op);
  const TensorView &x = step.views.in[0], &table = step.views.in[1];
  const int64_t n = table.shape[1] / 2, heads = x.shape[1] / op.head_dim;
  for (int64_t i = worker.part; i < x.shape[0] * heads; i += worker.n_parts) {
    const int64_t t = i / heads;
    const float *from = x.row<float>(t) + i % heads * op.head_dim, *cos = table.row<float>(t), *sin = cos + n;
    float* to = step.views.out.row<float>(t) + i % heads * op.head_dim;
    if (op.style == RopeStyle::kHalves) {
      int64_t j = 0;
      for (; j + kLanes <= n; j += kLanes) {
        const F32 a = load<F32>(from + j), b = load<F32>(from + n + j), c = load<F32>(cos + j), s = load<F32>(sin + j);
        store(to + j, a * c - b * s);
        store(to + n + j, a * s + b * c);
      }
      for (; j < n; ++j) {
        const float a = from[j], b = from[n + j];
        to[j] = a * cos[j] - b * sin[j];
        to[n + j] = a * sin[j] + b * cos[j];
      }
    } else {
      for (int64_t j = 0; j < n; ++j) {
        const float a = from[2 * j], b = from[2 * j + 1];
        to[2 * j] = a * cos[j] - b * sin[j];
        to[2 * j + 1] = a * sin[j] + b * cos[j];
      }
    }
    std::copy(from + 2 * n, from + op.head_dim, to + 2 * n);
  }
}

inline void cache_write(const Step& step, const Scalars& scalars, const Worker& worker) {
  const CacheWrite& op = std::get<CacheWrite>(*step.op);
  const TensorView& x = step.views.in[0];
  const int64_t width = x.shape[1], dh = scalars.kv->head_dim(), whole = dh / kLanes * kLanes;
  for (int64_t t = worker.part; t < x.shape[0]; t += worker.n_parts) {
    const float* from = x.row<float>(t);
    for (int64_t column = 0; column < width; column += dh, from += dh) {
      std::byte* to = scalars.kv->at(scalars.position + t, op.layer, int(op.part), column);
      if (!scalars.kv->half()) {
        std::copy(from, from + dh, reinterpret_cast<float*>(to));
        continue;
      }
      for (int64_t i = 0; i < whole; i += kLanes) store_half(to + 2 * i, load<F32>(from + i));
      for (int64_t i = whole; i < dh; ++i) reinterpret_cast<uint16_t*>(to)[i] = float_to_half(from[i]);
    }
  }
}

template <Activation A>
inline F32 act(F32 x) {
  if constexpr (A == Activation::kSilu) return x / (exp(-x) + 1.0f);
  if constexpr (A == Activation::kGeluTanh) return x * 0.5f * (tanh(0.79788456f * mul_add(x * x * x, splat(0.044715f), x)) + 1.0f);
  if constexpr (A == Activation::kRelu) return max(x, F32{});
  if constexpr (A == Activation::kGeluErf) {
    for (int i = 0; i < kLanes; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678f));
    return x;
  }
}

/// out[i] = f(a[i], b[i]) over all elements; b may be a itself.
template <class F>
inline void elementwise(const Step& step, const Worker& worker, int second, F f) {
  const MutableTensorView& y = step.views.out;
  const int64_t columns = y.shape[1];
  int64_t begin, end;
  worker.share(y.shape[0] * columns, 256, begin, end);
  while (begin < end) {
    const int64_t t = begin / columns, first = begin % columns, n = std::min(end - begin, columns - first);
    const float *a = step.views.in[0].row<float>(t) + first, *b = step.views.in[size_t(second)].row<float>(t) + first;
    float* to = y.row<float>(t) + first;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(to + i, f(load<F32>(a + i), load<F32>(b + i)));
    if (i < n) {  // the tail goes through a whole vector of its own
      F32 va{}, vb{};
      std::memcpy(&va, a + i, size_t(n - i) * 4);
      std::memcpy(&vb, b + i, size_t(n - i) * 4);
      const F32 v = f(va, vb);
      std::memcpy(to + i, &v, size_t(n - i) * 4);
    }
    begin += n;
  }
}

template <class F>
inline void with_activation(Activation a, F f) {
  switch (a) {
    case Activation::kSilu:
      return f([](F32 x) { return act<Activation::kSilu>(x); });
    case Activation::kGeluTanh:
      return f([](F32 x) { return act<Activation::kGeluTanh>(x); });
    case Activation::kGeluErf:
      return f([](F32 x) { return act<Activation::kGeluErf>(x); });
    case Activation::kRelu:
      return f([](F32 x) { return act<Activation::kRelu>(x); });
  }
}

inline void glu(const Step& step, const Scalars&, const Worker& worker) {
  with_activation(std::get<Glu>(*step.op).act,
                  [&](auto a) { elementwise(step, worker, 1, [&](F32 gate, F32 up) { return a(gate) * up; }); });
}
inline void activate(const Step& step, const Scalars&, const Worker& worker) {
  with_activation(std::get<Activate>(*step.op).act, [&](auto a) { elementwise(step, worker, 0, [&](F32 x, F32) { return a(x); }); });
}
inline void add(const Step& step, const Scalars&, const Worker& worker) {
  elementwise(step, worker, 1, [](F32 a, F32 b) { return a + b; });
}
inline void softcap(const Step& step, const Scalars&, const Worker& worker) {
  const float cap = std::get<SoftCap>(*step.op).cap;
  elementwise(step, worker, 0, [&](F32 x, F32) { return tanh(x * (1.0f / cap)) * cap; });
}
inline void last_row(const Step& step, const Scalars&, const Worker& worker) {
  const TensorView& x = step.views.in[0];
  if (worker.part == 0) std::copy_n(x.row<float>(x.shape[0] - 1), x.shape[1], step.views.out.row<float>(0));
}

}  // namespace sb::SB_ISA
