// The loops that quantising spends its time in, compiled once an instruction set like all kernels; quantize/ drives them.
#pragma once

#include <cstdint>

namespace sb {

/// c[i][j] += sign · Σ_t a[i·a_row + t·a_step] · b[t·b_row + j]: moments (a is x, transposed), error feedback, Cholesky updates.
struct Product {
  const float* a;
  int64_t a_row, a_step;  // floats
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  int64_t n_sum, n_rows, n_columns;
  float sign = 1;
};

/// Segments of a coded column, one after another. States have kStateBits bits: the low `n_planes` are this row's planes, the next the row
/// above's.
struct ViterbiTask {
  int n_planes;
  const float* values;  // of each state [4096]
  const float* target;  // [n_segments · segment], unit variance
  int64_t segment, n_segments;
  float* history;  // scratch: viterbi_scratch_floats
  uint8_t* bits;   // out: plane bits of each row
  float* coded;    // out: the value that stands for each target
};
/// Costs of every end state after every row, and before the first; and the end states' values.
constexpr int64_t viterbi_scratch_floats(int n_planes, int64_t segment) { return (segment + 2) * (4096 >> n_planes); }

struct QuantizeKernels {
  void (*product)(const Product&);
  void (*viterbi)(const ViterbiTask&);
  void (*axpy)(float a, const float* x, float* y, int64_t n);  // y += a · x
  /// A row as halves times a power of two, so that its largest lies below 32768: 11 bits of every number that is not 2^29 times smaller.
  /// Returns the power.
  float (*halve)(const float* x, uint16_t* to, int64_t n);
  void (*widen)(const uint16_t* x, float scale, float* to, int64_t n);  // to = scale · x
};

/// Those of the best instruction set of this machine and build.
const QuantizeKernels& quantize_kernels();

}  // namespace sb
