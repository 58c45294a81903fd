#include "device/webgpu/gpu_weights.h"

#include <algorithm>
#include <cstring>

#include "formats/decode.h"
#include "formats/planes.h"

namespace sb {
namespace {

constexpr int64_t kStagingBytes = int64_t(4) << 20;

uint64_t hash_of(std::span<const uint32_t> words) {  // FNV-1a over words
  uint64_t h = 0xcbf29ce484222325;
  for (uint32_t w : words) h = (h ^ w) * 0x100000001b3;
  return h;
}

}  // namespace

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::keep(const void* key, int64_t n_rows, int64_t row_bytes, int64_t most_rows,
                                                          int64_t grain_rows, const std::function<void(int64_t row, std::byte* to)>& read) {
  std::weak_ptr<const GpuMatrix>& known = matrices_[key];
  if (auto matrix = known.lock()) return matrix;
  auto matrix = std::make_shared<GpuMatrix>();
  most_rows = most_rows / grain_rows * grain_rows;
  const int64_t staged_rows = std::max<int64_t>(1, kStagingBytes / row_bytes);
  if (most_rows == 0)
    return err(Code::kOpUnsupported,
               {{"device", "webgpu"}, {"op", "rows of " + std::to_string(row_bytes) + " bytes"}, {"dtype", "weights"}});
  SB_TRY(Block staging, Block::take(Tag::kStaging, uint64_t(std::min(staged_rows, n_rows) * row_bytes + 4)));
  for (int64_t first = 0; first < n_rows; first += most_rows) {
    const int64_t rows_here = std::min(most_rows, n_rows - first);
    SB_TRY(GpuBuffer buffer,
           GpuBuffer::take(Tag::kWeights, uint64_t(rows_here * row_bytes) + 4));  // kernels read whole words, one past the end
    uint64_t at = 0;                                                              // bytes
    for (int64_t row = 0, n_staged = 0; row < rows_here; row += n_staged) {
      // Writes are whole words: an odd number of words' bytes waits for the next rows.
      n_staged = std::min(staged_rows, rows_here - row);
      while (n_staged < rows_here - row && n_staged > 1 && n_staged * row_bytes % 4) --n_staged;
      const int64_t n_bytes = n_staged * row_bytes;
      SB_ASSERT(n_bytes % 4 == 0 || row + n_staged == rows_here);
      for (int64_t i = 0; i < n_staged; ++i) read(first + row + i, staging.data() + i * row_bytes);
      gpu_write(buffer.id(), double(at), staging.data(), uint32_t((n_bytes + 3) / 4 * 4));
      at += uint64_t(n_bytes);
    }
    matrix->push_back({std::move(buffer), first, rows_here});
  }
  known = matrix;
  return matrix;
}

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::rows(const TensorView& w) {
  return keep(w.data, w.shape[0], w.row_bytes, (int64_t(most_bytes_) - 4) / w.row_bytes, 1,
              [&](int64_t row, std::byte* to) { std::memcpy(to, w.row_bytes_at(row), size_t(w.row_bytes)); });
}

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::planes(const PlaneMatrix& m, int set) {
  const PlaneSet& s = m.sets[set];
  // Pieces of all sets have the same rows.
  return keep(s.words, m.n_rows, m.words_per_row() * s.code.n_planes * 4, (int64_t(most_bytes_) - 4) / (m.words_per_row() * kMaxPlanes * 4),
              m.segment, [&](int64_t row, std::byte* to) { plane_row_words(m, s, row, reinterpret_cast<uint32_t*>(to)); });
}

uint32_t GpuWeights::vector(std::span<const uint32_t> words) {
  const uint64_t hash = hash_of(words);
  const auto [begin, end] = known_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const auto [at, n] = it->second;
    if (n == words.size() && std::equal(words.begin(), words.end(), words_.begin() + at)) return at;
  }
  words_.resize((words_.size() + 3) / 4 * 4);  // kernels read four at a time
  const auto at = uint32_t(words_.size());
  words_.insert(words_.end(), words.begin(), words.end());
  known_.emplace(hash, std::pair(at, uint32_t(words.size())));
  return at;
}

uint32_t GpuWeights::vector(std::span<const float> numbers) {
  return vector(std::span(reinterpret_cast<const uint32_t*>(numbers.data()), numbers.size()));
}

uint32_t GpuWeights::vector(const TensorView& v) {
  std::vector<float> numbers(size_t(v.shape.elements()));
  decode_row(v.dtype, v.data, numbers.data(), v.shape.elements());
  return vector(std::span<const float>(numbers));
}

Status GpuWeights::flush() {
  if (words_.size() == n_flushed_ && vectors_buffer_.id()) return {};
  if (words_.size() * 4 > vectors_buffer_.size() || !vectors_buffer_.id()) {
    SB_TRY(vectors_buffer_, GpuBuffer::take(Tag::kWeights, std::max<uint64_t>(256, (words_.size() + 3) / 4 * 16)));
    n_flushed_ = 0;
  }
  if (words_.empty()) return {};
  vectors_buffer_.write(n_flushed_ * 4, std::span<const uint32_t>(words_).subspan(n_flushed_));
  n_flushed_ = words_.size();
  return {};
}

}  // namespace sb
