// What a group of matrices is encoded against: sums over the calibration text of its inputs, and of what they should have been.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "quantize/booked.h"

namespace sb {

/// Means over tokens, once closed.
struct Moments {
  int64_t n_tokens = 0;
  Booked<float> own;     // x xᵀ [K, K]
  Booked<float> cross;   // exact xᵀ [K, K]; empty where nothing is to be made up for
  Booked<float> stream;  // (exact − own stream) xᵀ [N, K]; empty where the product joins no stream

  /// Adds Σ x xᵀ of x [n_tokens, k].
  void add(std::span<const float> x, int64_t k, ThreadPool& pool);
  /// Adds Σ exact xᵀ.
  void add_cross(std::span<const float> exact, std::span<const float> x, int64_t k, ThreadPool& pool);
  /// Adds Σ lost xᵀ: lost [n_tokens, n].
  void add_stream(std::span<const float> lost, int64_t n, std::span<const float> x, int64_t k, ThreadPool& pool);
  /// Sums to means.
  void close(int64_t k);
  /// Of an input whose directions all count alike.
  static Moments identity(int64_t k);
};

}  // namespace sb
