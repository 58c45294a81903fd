// What one window of a tuning step adds to the gradients.
#pragma once

#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/backward.h"
#include "quantize/tuned_model.h"

namespace sb {

/// Its own sums, so that windows may run side by side; add_to_model() in the windows' order gives the same whoever ran which when.
class WindowGradients final : public GradientSink {
 public:
  WindowGradients(TunedModel& model, ThreadPool& pool) : pool(pool), model_(model) {}
  std::span<float> vector(std::string_view name) override;
  void product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) override;
  void input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) override;
  void add_to_model() const;

  ThreadPool& pool;  // of whoever runs the window

 private:
  std::vector<float>& sums_of(TunedNumbers& numbers);

  TunedModel& model_;
  std::map<TunedNumbers*, std::vector<float>> sums_;
};

}  // namespace sb
