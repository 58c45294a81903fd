// Where the tensors of a file lie, whatever the container.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "device/device_rows.h"
#include "tensor/tensor.h"

namespace sb {

struct TensorPlace {
  std::string name;
  Dtype dtype = Dtype::kF32;
  bool is_i64 = false;   // stored as 64-bit integers, kept as kI32
  Shape shape;           // outermost first
  uint64_t offset = 0;   // bytes from the file's start
  uint64_t n_bytes = 0;  // in the file
};

/// A tensor's bytes as the file has them: here, or on a device. Of a tensor in pieces the last one has what the device keeps, of all.
struct TensorBytes {
  TensorBytes(Block bytes) : block(std::move(bytes)) {}
  TensorBytes(std::unique_ptr<DeviceRows> rows, std::optional<Error> what) : there(std::move(rows)), flaw(std::move(what)) {}

  Block block;
  std::unique_ptr<DeviceRows> there;
  std::optional<Error> flaw;  // of numbers that went to a device: told when the bytes are known to be those that were written
};
using TakeTensor = std::function<Status(const TensorPlace& place, TensorBytes bytes)>;

/// Sorts by offset. Errors: kModelCorrupt when two overlap, kModelTruncated when one ends beyond `file_size`.
Status settle_tensor_places(std::vector<TensorPlace>& places, uint64_t file_size, std::string_view file);

/// A tensor's own Block (Tag::kWeights) from its bytes in the file: a copy, 64-bit integers narrowed to 32 bits.
/// Errors: kModelCorrupt when one does not fit, kMemoryExhausted.
Result<Block> stored_block(const TensorPlace& place, std::span<const std::byte> from, std::string_view file);

/// "F32, F16, …": the types that can be read.
std::string known_dtypes();

/// Why `bytes`, the first of a file, are something other than a model: a web page, a Git LFS pointer, an archive. Empty when unknown.
std::string_view foreign_file(std::string_view bytes);

/// Errors: kWeightsNotFinite {tensor, file, index} when a float, or a block's scale, is NaN or infinite. `bytes` are whole blocks, the
/// first of which is element `first`.
Status check_finite(std::string_view name, std::string_view file, Dtype dtype, std::span<const std::byte> bytes, int64_t first = 0);

}  // namespace sb
