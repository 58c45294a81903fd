#include "device/webgpu/gpu_weights.h"

#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "formats/decode.h"
#include "formats/planes.h"

namespace sb {
namespace {

constexpr int64_t kStagingBytes = int64_t(4) << 20;

/// Kernels read whole words, one past the end.
uint64_t piece_bytes(int64_t n_rows, int64_t row_bytes) { return uint64_t(n_rows * row_bytes) + 4; }

}  // namespace

GpuRows::GpuRows(const RowLayout& rows, std::shared_ptr<GpuMatrix> matrix)
    : DeviceRows(uint64_t(rows.n_rows * rows.row_bytes)), shared_(std::move(matrix)), row_bytes_(rows.row_bytes) {}

Status GpuRows::write(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const GpuPiece& piece = (*shared_)[piece_];
    const uint64_t begin = uint64_t(piece.first_row * row_bytes_), end = begin + uint64_t(piece.n_rows * row_bytes_);
    const auto n = size_t(std::min<uint64_t>(bytes.size(), end - offset));
    write_piece(offset - begin, bytes.first(n), offset + n == end);
    offset += n;
    bytes = bytes.subspan(n);
    if (offset == end) ++piece_;
  }
  return {};
}

void GpuRows::write_piece(uint64_t offset, std::span<const std::byte> bytes, bool is_end) {
  const GpuId id = (*shared_)[piece_].buffer.id();
  const auto n_waiting = size_t(offset % 4);
  if (n_waiting > 0) {
    const size_t n = std::min(bytes.size(), 4 - n_waiting);
    std::memcpy(word_.data() + n_waiting, bytes.data(), n);
    if (n_waiting + n == 4 || is_end) gpu_write(id, double(offset - n_waiting), word_.data(), 4);
    offset += n;
    bytes = bytes.subspan(n);
  }
  const size_t n_whole = bytes.size() / 4 * 4, n_rest = bytes.size() - n_whole;
  if (n_whole > 0) gpu_write(id, double(offset), bytes.data(), uint32_t(n_whole));
  if (n_rest == 0) return;
  word_ = {};
  std::memcpy(word_.data(), bytes.data() + n_whole, n_rest);
  if (is_end) gpu_write(id, double(offset + n_whole), word_.data(), 4);
}

int64_t GpuWeights::rows_a_piece(const RowLayout& rows) const {
  // A piece's bytes are whole words, but for the last one's.
  const int64_t grain = rows.grain_rows % 4 == 0 ? rows.grain_rows : 4 * rows.grain_rows;
  return std::min(rows.n_rows, (int64_t(most_bytes_) - 4) / std::max(rows.row_bytes, rows.widest_bytes) / grain * grain);
}

Result<std::unique_ptr<GpuRows>> GpuWeights::take(const RowLayout& rows) const {
  const int64_t most_rows = rows_a_piece(rows);
  if (most_rows == 0)
    return err(Code::kOpUnsupported,
               {{"device", "webgpu"}, {"op", "rows of " + std::to_string(rows.row_bytes) + " bytes"}, {"dtype", "weights"}});
  auto matrix = std::make_shared<GpuMatrix>();
  for (int64_t first = 0; first < rows.n_rows; first += most_rows) {
    const int64_t n = std::min(most_rows, rows.n_rows - first);
    SB_TRY(GpuBuffer buffer, GpuBuffer::take(Tag::kWeights, piece_bytes(n, rows.row_bytes)));
    matrix->push_back({std::move(buffer), first, n});
  }
  return std::make_unique<GpuRows>(rows, std::move(matrix));
}

uint64_t GpuWeights::bytes_of(const RowLayout& rows) const {
  const int64_t most_rows = rows_a_piece(rows);
  uint64_t n_bytes = 0;
  for (int64_t first = 0; most_rows > 0 && first < rows.n_rows; first += most_rows)
    n_bytes += GpuBuffer::bytes_of(piece_bytes(std::min(most_rows, rows.n_rows - first), rows.row_bytes));
  return n_bytes;
}

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::keep(const void* key, const RowLayout& layout,
                                                          const std::function<void(int64_t row, std::byte* to)>& read) {
  std::weak_ptr<const GpuMatrix>& known = matrices_[key];
  if (auto matrix = known.lock()) return matrix;
  SB_TRY(const std::unique_ptr<GpuRows> rows, take(layout));
  const int64_t staged_rows = std::clamp<int64_t>(kStagingBytes / layout.row_bytes, 1, layout.n_rows);
  SB_TRY(Block staging, Block::take(Tag::kStaging, uint64_t(staged_rows * layout.row_bytes)));
  for (int64_t first = 0; first < layout.n_rows; first += staged_rows) {
    const int64_t n = std::min(staged_rows, layout.n_rows - first);
    for (int64_t i = 0; i < n; ++i) read(first + i, staging.data() + i * layout.row_bytes);
    SB_OK(rows->append(staging.bytes().first(size_t(n * layout.row_bytes))));
  }
  known = rows->matrix();
  return rows->matrix();
}

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::rows(const TensorView& w) {
  if (w.there) return static_cast<const GpuRows*>(w.there)->matrix();
  return keep(w.data, {w.shape[0], w.row_bytes},
              [&](int64_t row, std::byte* to) { std::memcpy(to, w.row_bytes_at(row), size_t(w.row_bytes)); });
}

Result<std::shared_ptr<const GpuMatrix>> GpuWeights::planes(const PlaneMatrix& m, int set) {
  const PlaneSet& s = m.sets[set];
  if (s.there) return static_cast<const GpuRows*>(s.there)->matrix();
  return keep(s.words, plane_layout(m.n_rows, s.code.n_planes, m.n_columns),
              [&](int64_t row, std::byte* to) { plane_row_words(m, s, row, reinterpret_cast<uint32_t*>(to)); });
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
