// The op cases: what conformance, micro-benchmarks and the support table run. A case builds a small plan from random sources; a device
// must agree with the scalar reference on its output "y" within the case's normalised mean square error.
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "device/device.h"
#include "formats/planes.h"
#include "ops/ops.h"

namespace sb {

/// Of a plan's attention; where it has none, a cache's rows are one head's.
inline int64_t head_dim_of(const Plan& plan, int32_t kv_width) {
  for (const Node& node : plan.nodes()) {
    if (const auto* attention = std::get_if<Attention>(&node.op)) return attention->head_dim;
  }
  return kv_width;
}

/// Random activations and weights for one plan; owns the bytes.
class Sources {
 public:
  Sources(Plan& plan, uint64_t seed) : plan_(plan), random_(seed) {}

  /// An activation [T, width] of unit normal numbers, some of them large: what a transformer's outliers look like.
  Ref x(int64_t width);
  /// A weight [n, k] of any stored type, about 1/√k in size.
  Ref w(Dtype dtype, int64_t n, int64_t k);
  /// Rows first_row … first_row + n − 1 of an [n + first_row, k] matrix of sign planes: random bits, `refine` the code of a second set or
  /// "".
  Ref planes(const char* format, const char* refine, int64_t n, int64_t k, int64_t first_row, PlaneOrder order);
  /// A matrix of sign planes and an activation that make a sum of `k` products as large as it can be: all of 1e4, rows of one sign, no
  /// rotation.
  std::pair<Ref, Ref> largest_planes(const char* format, int64_t n, int64_t k);
  /// A vector [n] around `mean`.
  Ref v(int64_t n, float mean = 1);
  /// What was in the cache before: fills `kv` up to `position` with normal numbers.
  void fill(KvPages& kv, int32_t n_layers, int64_t position);

  uint64_t seed() { return random_(); }

 private:
  Plan& plan_;
  std::mt19937_64 random_;
  template <class T, class F>
  T* numbers(int64_t n, F make);
  std::vector<std::unique_ptr<std::vector<std::byte>>> bytes_;
  std::vector<std::unique_ptr<PlaneMatrix>> matrices_;
};

struct OpCase {
  const char* op;    // as in device/op.h
  std::string text;  // the case's numbers, for reports
  int64_t n_tokens;
  int32_t position;  // tokens in the cache before
  int32_t kv_width;  // 0: no cache
  bool half;         // the cache's elements
  double nmse;       // Σ(a−b)² / Σb², at most
  const char* why;   // of this tolerance
  std::function<Ref(Plan&, Sources&)> build;
  double macs = 0;  // multiply-adds, for the benchmark; 0 where bytes count
};

std::vector<OpCase> op_cases();
/// What is timed: the same ops in the sizes that models have. Checked before they are timed, too large for every test run.
std::vector<OpCase> bench_cases();

}  // namespace sb
