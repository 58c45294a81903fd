// Random weights of every stored type: for checks and measurements that need a model's shapes and none of its contents.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "formats/decode.h"
#include "formats/list.h"
#include "formats/planes.h"

namespace sb {

/// xorshift64*: numbers without structure, the same everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t bits() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1D;
  }
  /// Evenly spread around `mean`.
  float number(float deviation, float mean = 0) {
    constexpr float kRoot3 = 1.7320508f;
    return mean + deviation * kRoot3 * (float(bits() >> 40) * 0x1p-23f - 1);
  }

 private:
  uint64_t state_;
};

/// Random weights of every stored type; owns their bytes.
class RandomWeights {
 public:
  explicit RandomWeights(uint64_t seed) : random_(seed) {}

  /// As `like`, but [n, k], of about 1/√k; a vector [k] around 1.
  TensorView matrix(const TensorView& like, int64_t n, int64_t k) {
    if (like.planes) return planes(*like.planes, n, k);
    const float deviation = 1 / std::sqrt(float(k));
    const int64_t row_bytes = dtype_bytes(like.dtype, k);
    std::byte* to = bytes(n * row_bytes);
    fill(like.dtype, to, n * k, deviation, 0);
    return {to, like.dtype, {n, k}, row_bytes};
  }
  TensorView vector(const TensorView& like, int64_t n) {
    std::byte* to = bytes(dtype_bytes(like.dtype, n));
    fill(like.dtype, to, n, 0.3f, 1);
    return {to, like.dtype, {n}, dtype_bytes(like.dtype, n)};
  }
  std::vector<float> numbers(int64_t n) {
    std::vector<float> out(size_t(n), 0.0f);
    for (float& x : out) x = random_.number(1);
    return out;
  }

 private:
  std::byte* bytes(int64_t n) {
    bytes_.push_back(std::make_unique<std::vector<std::byte>>(size_t(n + 8)));
    return bytes_.back()->data();
  }
  void fill(Dtype dtype, std::byte* to, int64_t n, float deviation, float mean) {
    const DtypeRow& row = dtype_row(dtype);
    if (row.block == 1) {
      for (int64_t i = 0; i < n; ++i) {
        const float value = random_.number(deviation, mean);
        const uint32_t bits = __builtin_bit_cast(uint32_t, value);
        const uint16_t half = dtype == Dtype::kF16 ? float_to_half(value) : uint16_t(bits >> 16);
        std::memcpy(to + i * row.bytes_per_block, dtype == Dtype::kF32 ? static_cast<const void*>(&bits) : &half,
                    size_t(row.bytes_per_block));
      }
      return;
    }
    // Random codes are fine as they are; random scales are not. A code is worth up to 8 or so.
    const int64_t n_bytes = n / row.block * row.bytes_per_block;
    for (int64_t i = 0; i < n_bytes; ++i) to[i] = std::byte(random_.bits() >> 32);
    for (int64_t block = 0; block < n / row.block; ++block) {
      for (int at : format_of(dtype).half_at) {
        const uint16_t scale = float_to_half(random_.number(deviation * 0.1f));
        if (at >= 0) std::memcpy(to + block * row.bytes_per_block + at, &scale, 2);
      }
    }
  }
  uint16_t* halves(int64_t n, float deviation, float mean) {
    auto* to = reinterpret_cast<uint16_t*>(bytes(n * 2));
    for (int64_t i = 0; i < n; ++i) to[i] = float_to_half(random_.number(deviation, mean));
    return to;
  }
  uint32_t* words(int64_t n) {
    auto* to = reinterpret_cast<uint32_t*>(bytes(n * 4));
    for (int64_t i = 0; i < n; ++i) to[i] = uint32_t(random_.bits() >> 32);
    return to;
  }
  TensorView planes(const PlaneMatrix& like, int64_t n, int64_t k) {
    auto m = std::make_unique<PlaneMatrix>();
    m->n_rows = plane_rows(n);
    m->n_columns = plane_columns(k);
    m->segment = plane_segment(m->n_rows);
    m->hadamard = like.hadamard;
    if (m->hadamard) m->signs = words(m->words_per_row());
    m->n_sets = m->max_sets = like.n_sets;
    const float deviation = 1 / std::sqrt(float(k));
    for (int set = 0; set < m->n_sets; ++set) {
      const PlaneSet& from = like.sets[set];
      PlaneSet& s = m->sets[set];
      s.code = from.code;
      s.words = words(m->n_rows * s.code.n_planes * m->words_per_row());
      s.order = PlaneOrder::kBlocks;
      if (from.row_scale.floats) {
        auto* scales = reinterpret_cast<float*>(bytes(m->n_rows * 4));
        for (int64_t i = 0; i < m->n_rows; ++i) scales[i] = random_.number(0.3f * deviation, deviation);
        s.row_scale = static_cast<const float*>(scales);
      } else {
        s.row_scale = static_cast<const uint16_t*>(halves(m->n_rows, 0.3f * deviation, deviation));
      }
      if (from.column_scale) s.column_scale = halves(m->n_columns, 0.3f, 1);
    }
    matrices_.push_back(std::move(m));
    return {nullptr, Dtype::kPlanes, {n, k}, 0, matrices_.back().get(), 0};
  }

  Random random_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> bytes_;
  std::vector<std::unique_ptr<PlaneMatrix>> matrices_;
};

}  // namespace sb
