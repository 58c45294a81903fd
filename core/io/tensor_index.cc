#include "io/tensor_index.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "formats/list.h"

namespace sb {

Status settle_tensor_places(std::vector<TensorPlace>& places, uint64_t file_size, std::string_view file) {
  std::sort(places.begin(), places.end(), [](const TensorPlace& a, const TensorPlace& b) {
    return std::tie(a.offset, a.n_bytes, a.name) < std::tie(b.offset, b.n_bytes, b.name);
  });
  uint64_t end = 0;
  const TensorPlace* before = nullptr;
  for (const TensorPlace& place : places) {
    if (place.n_bytes == 0) continue;
    if (before && place.offset < end) {
      return err(Code::kModelCorrupt,
                 {{"file", file}, {"place", "tensor " + place.name}, {"why", "its bytes overlap those of " + before->name}});
    }
    end = place.offset + place.n_bytes;
    before = &place;
  }
  if (end > file_size) return err(Code::kModelTruncated, {{"file", file}, {"size", file_size}, {"needed", end}});
  return {};
}

Result<Block> stored_block(const TensorPlace& place, std::span<const std::byte> from, std::string_view file) {
  SB_TRY(Block block, Block::take(Tag::kWeights, place.is_i64 ? from.size() / 2 : from.size()));
  if (!place.is_i64) {
    if (!from.empty()) std::memcpy(block.data(), from.data(), from.size());
    return block;
  }
  for (size_t i = 0; i < from.size() / 8; ++i) {
    int64_t wide;
    std::memcpy(&wide, from.data() + 8 * i, sizeof wide);
    const int32_t narrow = int32_t(wide);
    if (narrow != wide) {
      return err(Code::kModelCorrupt,
                 {{"file", file}, {"place", "tensor " + place.name}, {"why", std::to_string(wide) + " does not fit 32 bits"}});
    }
    std::memcpy(block.data() + 4 * i, &narrow, sizeof narrow);
  }
  return block;
}

std::string known_dtypes() {
  std::string out;
  for (const DtypeRow& row : kDtypeRows) out.append(out.empty() ? "" : ", ").append(row.name);
  return out;
}

std::string_view foreign_file(std::string_view bytes) {
  struct Row {
    std::string_view start, why;
  };
  static constexpr Row kRows[] = {
      {"<", "it begins like a web page; the address may answer with an error page or need a login"},
      {"version https://git-lfs", "it is a Git LFS pointer; fetch the file that it points to"},
      {"PK\x03\x04", "it is a ZIP archive (a PyTorch checkpoint, perhaps)"},
      {"\x80\x02", "it is a Python pickle"},
      {"\x1f\x8b", "it is compressed with gzip; unpack it first"},
      {"GGML", "it is a GGML file from before GGUF; convert it with llama.cpp"},
      {"lmgg", "it is a GGML file from before GGUF; convert it with llama.cpp"},
      {"fmgg", "it is a GGML file from before GGUF; convert it with llama.cpp"},
      {"tjgg", "it is a GGML file from before GGUF; convert it with llama.cpp"},
  };
  for (const Row& row : kRows) {
    if (bytes.starts_with(row.start)) return row.why;
  }
  return {};
}

namespace {

/// Index of the first of `n` words whose exponent bits are all set, or -1. Chunks without a branch inside, so that it runs at the
/// memory's speed with any SIMD the compiler has.
template <class Word>
int64_t first_not_finite(const std::byte* from, int64_t n, Word exponent) {
  constexpr int64_t kChunk = 4096;
  for (int64_t start = 0; start < n; start += kChunk) {
    const int64_t end = std::min(n, start + kChunk);
    Word found = 0;
    for (int64_t i = start; i < end; ++i) {
      Word w;
      std::memcpy(&w, from + i * int64_t(sizeof(Word)), sizeof w);
      found |= Word((w & exponent) == exponent);
    }
    if (!found) continue;
    for (int64_t i = start; i < end; ++i) {
      Word w;
      std::memcpy(&w, from + i * int64_t(sizeof(Word)), sizeof w);
      if ((w & exponent) == exponent) return i;
    }
  }
  return -1;
}

bool is_finite_half(const std::byte* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return (half & 0x7C00) != 0x7C00;
}

/// Index of the first of `n` blocks with a scale that is not finite, or -1; both places in one pass over the memory.
int64_t first_bad_block(const std::byte* from, int64_t n, int64_t stride, const int (&half_at)[2]) {
  const int a = half_at[0], b = half_at[1] < 0 ? half_at[0] : half_at[1];
  for (int64_t i = 0; i < n; ++i, from += stride) {
    if (!is_finite_half(from + a) || !is_finite_half(from + b)) return i;
  }
  return -1;
}

}  // namespace

Status check_finite(std::string_view name, std::string_view file, Dtype dtype, std::span<const std::byte> bytes, int64_t first) {
  const DtypeRow& row = dtype_row(dtype);
  const int64_t n_blocks = int64_t(bytes.size()) / row.bytes_per_block;
  int64_t index = -1;
  if (dtype == Dtype::kF32) index = first_not_finite<uint32_t>(bytes.data(), n_blocks, 0x7F80'0000u);
  if (dtype == Dtype::kF16) index = first_not_finite<uint16_t>(bytes.data(), n_blocks, 0x7C00);
  if (dtype == Dtype::kBF16) index = first_not_finite<uint16_t>(bytes.data(), n_blocks, 0x7F80);
  if (format_of(dtype).half_at[0] >= 0) {
    const int64_t bad = first_bad_block(bytes.data(), n_blocks, row.bytes_per_block, format_of(dtype).half_at);
    if (bad >= 0) index = bad * row.block;
  }
  if (index < 0) return {};
  return err(Code::kWeightsNotFinite, {{"tensor", name}, {"file", file}, {"index", first + index}});
}

}  // namespace sb
