// Reverse mode over a recorded plan: each op's backward, and a stretch of a model that goes back through what it ran. The families write
// their forward pass only; what tuning needs follows from the ops.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "ops/reference.h"
#include "quantize/forward.h"

namespace sb {

/// dL/dy of a node, and what its share of dL/d(input) is added to, as float32. A view without data is not wanted. Vectors are one row.
struct OpGradients {
  TensorView out;
  std::array<MutableTensorView, 4> in;
};
/// Adds to gradients.in what a node with gradients.out gives. `forward` sees the values of the run. A matmul's weight is dense float32 and
/// gets no gradient of its own; attention's in[1] and in[2] are the keys and values [T, K·dh] that were written to its layer's cache,
/// of a run that began at position 0. The same sums in the same order whatever the number of threads.
/// Errors: kOpUnsupported {op, dtype} for an op without a backward, or a matmul whose weight is not float32.
Status run_backward(const Op& op, const OpViews& forward, const OpGradients& gradients, ThreadPool& pool);

/// Who takes the gradients of a stretch's parameters.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  /// What the gradient of a vector of the model (a norm's weight, a bias) is added to; empty where it is not wanted.
  virtual std::span<float> vector(std::string_view name) = 0;
  /// The product y = x·Wᵀ + bias was run, and dL/dy is `dy`; `bias` has no data where there is none.  y, dy [T, N], bias [N]
  virtual void product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) = 0;
  /// x was read by the products of `weights` and by nothing else, and dL/dx is `dx`.  x, dx [T, K]
  virtual void input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) = 0;
};

/// A stretch that keeps all its activations, to go back through them.
class ReversibleStretch {
 public:
  /// As Stretch::compile; matrices are to be dense float32 (by `substitutes`).
  static Result<ReversibleStretch> compile(const ModelGraph& graph, Device& device, const Pass& pass, const Substitutes& substitutes);
  Status run(std::span<const float> x, std::span<const int32_t> ids) { return stretch_.run(x, ids); }
  std::span<const float> output(std::string_view name) const { return stretch_.output(name); }
  /// From dL/d(output `name`) of the last run to its parameters and to its input "x" (dx [T, D], empty when the stretch begins with the
  /// embedding). Nothing else may have run on the device since. Errors: kOpUnsupported.
  Status back(std::string_view name, std::span<const float> gradient, GradientSink& sink, std::span<float> dx, ThreadPool& pool);

 private:
  int32_t root(int32_t value) const;
  TensorView view(int32_t value) const;
  MutableTensorView gradient_view(int32_t value);

  Stretch stretch_;
  std::unique_ptr<Plan> plan_;
  std::vector<std::vector<float>> floats_, gradients_;  // a value: vectors in float32; dL/d(activation), of roots
  std::vector<const float*> values_;                    // a value: where the last run left it, of roots
};

}  // namespace sb
