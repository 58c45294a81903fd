// How fast a device works through the products that a decoder's layers are made of: what kernels and numbers of threads are chosen by.
#pragma once

#include <vector>

#include "device/device.h"
#include "runtime/random_weights.h"

namespace sb {

struct DeviceRate {
  double weights = 0;  // a second, of one token
  double macs = 0;     // multiply-adds a second, of a prompt's tokens
  /// Seconds that a weight of a model takes in an answer of usual length: 128 tokens read, 64 made.
  double answer() const { return 128 / macs + 64 / weights; }
};

/// Random matrices of 3-bit planes that outweigh most caches, as a model's do.
class RateProbe {
 public:
  RateProbe();
  /// About a tenth of a second. Errors: the device's.
  Result<DeviceRate> measure(Device& device) const;

 private:
  Result<double> seconds(Device& device, int64_t n_tokens, size_t n_matrices) const;

  RandomWeights weights_{1};
  std::vector<TensorView> matrices_;
};

}  // namespace sb
