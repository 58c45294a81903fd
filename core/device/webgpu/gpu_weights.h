// What the GPU keeps of a model: matrices in pieces that a binding can hold, and small vectors together in one buffer.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "device/webgpu/gpu_buffer.h"
#include "tensor/tensor.h"

namespace sb {

/// Consecutive rows of a matrix in a buffer of their own.
struct GpuPiece {
  GpuBuffer buffer;
  int64_t first_row = 0, n_rows = 0;
};
using GpuMatrix = std::vector<GpuPiece>;

class GpuWeights {
 public:
  /// `most_bytes`: of a binding.
  explicit GpuWeights(uint64_t most_bytes) : most_bytes_(most_bytes) {}

  /// The matrix's rows of blocks, brought there when first asked for, kept as long as somebody holds it.
  Result<std::shared_ptr<const GpuMatrix>> rows(const TensorView& w);
  /// A set of planes in rows' order; pieces begin at segments.
  Result<std::shared_ptr<const GpuMatrix>> planes(const PlaneMatrix& m, int set);
  /// Where these words lie in the vectors' buffer; equal ones lie there once.
  uint32_t vector(std::span<const uint32_t> words);
  uint32_t vector(std::span<const float> numbers);
  /// A vector of any stored type, as floats.
  uint32_t vector(const TensorView& v);
  /// Brings new vectors there. Errors: kMemoryExhausted.
  Status flush();
  const GpuBuffer& vectors() const { return vectors_buffer_; }

 private:
  Result<std::shared_ptr<const GpuMatrix>> keep(const void* key, int64_t n_rows, int64_t row_bytes, int64_t most_rows, int64_t grain_rows,
                                                const std::function<void(int64_t row, std::byte* to)>& read);

  uint64_t most_bytes_;
  std::map<const void*, std::weak_ptr<const GpuMatrix>> matrices_;          // by where they lie in the host's memory
  std::vector<uint32_t> words_;                                             // of the vectors, those brought there first
  std::unordered_multimap<uint64_t, std::pair<uint32_t, uint32_t>> known_;  // hash → place, length
  GpuBuffer vectors_buffer_;
  size_t n_flushed_ = 0;
};

}  // namespace sb
