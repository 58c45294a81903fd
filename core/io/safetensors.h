// The safetensors container: 8 bytes of header length, a JSON header, the tensors' bytes.
// Format: github.com/huggingface/safetensors#format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/tensor_index.h"
#include "io/weights.h"

namespace sb {

inline constexpr uint64_t kLongestSafetensorsHeader = 100'000'000;  // bytes; the reference implementation's own bound

/// Bytes of length field and header together, told from the first 8 bytes (fewer only when the file is shorter).
/// Errors: kNotAModel, kModelTruncated.
Result<uint64_t> safetensors_head_bytes(std::span<const std::byte> first, uint64_t file_size, std::string_view file);

/// Parses the whole head (safetensors_head_bytes of it). Tensors come by rising offset, none overlapping, all inside the file.
/// Stored as F32, F16, BF16, I32, or I64 (is_i64: to be narrowed to kI32). Errors: kModelTruncated, kModelCorrupt, kDtypeUnknown,
/// kJsonInvalid.
Result<std::vector<TensorPlace>> safetensors_parse_head(std::span<const std::byte> head, uint64_t file_size, std::string_view file);

/// All tensors of a file that lies in memory, NaN and infinity allowed: golden inputs and outputs.
Result<WeightStore> safetensors_read(std::span<const std::byte> bytes, std::string_view file);

/// A tensor of a file that is yet to be written; `type` as safetensors spells it.
struct SafetensorsPlan {
  std::string_view name, type;
  Shape shape;
  uint64_t n_bytes;
};
/// The head of a file with these tensors one after another; the data, which follow it, begin at a multiple of 8.
std::string safetensors_head(std::span<const SafetensorsPlan> tensors);

struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;  // F32, F16, BF16 or I32
  Shape shape;
  std::span<const std::byte> bytes;  // dense
};
/// A file with these tensors, in this order.
std::vector<std::byte> write_safetensors(std::span<const SafetensorsEntry> entries);

}  // namespace sb
