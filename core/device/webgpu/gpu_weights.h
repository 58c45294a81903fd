// What the GPU keeps of a model: matrices in pieces that a binding can hold, and small vectors together in one buffer.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "device/device_rows.h"
#include "device/webgpu/gpu_buffer.h"
#include "tensor/tensor.h"

namespace sb {

/// Consecutive rows of a matrix in a buffer of their own.
struct GpuPiece {
  GpuBuffer buffer;
  int64_t first_row = 0, n_rows = 0;
};
using GpuMatrix = std::vector<GpuPiece>;

/// A matrix that came while its model was loaded. Programs share its pieces, and may outlive it.
class GpuRows final : public DeviceRows {
 public:
  GpuRows(const RowLayout& rows, std::shared_ptr<GpuMatrix> matrix);
  const std::shared_ptr<const GpuMatrix>& matrix() const { return shared_; }

 private:
  Status write(uint64_t offset, std::span<const std::byte> bytes) override;
  void write_piece(uint64_t offset, std::span<const std::byte> bytes, bool is_end);

  std::shared_ptr<const GpuMatrix> shared_;
  int64_t row_bytes_;
  size_t piece_ = 0;               // where the next byte goes
  std::array<std::byte, 4> word_;  // writes are whole words: the bytes of one that has not come whole
};

class GpuWeights {
 public:
  /// `most_bytes`: of a binding.
  explicit GpuWeights(uint64_t most_bytes) : most_bytes_(most_bytes) {}

  /// Room for a matrix whose bytes will come. Errors: kOpUnsupported (a row that no binding holds), kMemoryExhausted.
  Result<std::unique_ptr<GpuRows>> take(const RowLayout& rows) const;
  /// What it takes.
  uint64_t bytes_of(const RowLayout& rows) const;

  /// The matrix's rows of blocks: where they are, or brought there from the host when first asked for and kept as long as somebody holds
  /// them.
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
  int64_t rows_a_piece(const RowLayout& rows) const;
  Result<std::shared_ptr<const GpuMatrix>> keep(const void* key, const RowLayout& layout,
                                                const std::function<void(int64_t row, std::byte* to)>& read);

  uint64_t most_bytes_;
  std::map<const void*, std::weak_ptr<const GpuMatrix>> matrices_;          // by where they lie in the host's memory
  std::vector<uint32_t> words_;                                             // of the vectors, those brought there first
  std::unordered_multimap<uint64_t, std::pair<uint32_t, uint32_t>> known_;  // hash → place, length
  GpuBuffer vectors_buffer_;
  size_t n_flushed_ = 0;
};

}  // namespace sb
