#include "formats/planes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "formats/decode.h"

namespace sb {
namespace {

// Mid-rise levels ±Δ/2, ±3Δ/2 …: C[p] = Δ·2^(P−2−p), plane 0 the largest. Δ minimises the mean square error of a unit Gaussian.
constexpr PlaneCode plain(int n_planes, float delta) {
  PlaneCode code{n_planes, 1, {}};
  float c = delta * (n_planes == 2 ? 1.0f : n_planes == 3 ? 2.0f : 4.0f);
  for (int p = 0; p < n_planes; ++p, c *= 0.5f) code.filter[0][size_t(p)] = c;
  return code;
}

// The coded filters: linear trellis codes for a unit Gaussian, found by search (docs/formats.md §1). Nothing else knows the numbers:
// the filter travels in the file.
constexpr PlaneFormat kPlaneFormats[] = {
    {"plain2", plain(2, 0.996f)},
    {"plain3", plain(3, 0.586f)},
    {"plain4", plain(4, 0.335f)},
    {"coded2",
     {2,
      6,
      {{{-0.4075f, 0.4780f}, {-0.0924f, -0.2284f}, {0.2642f, 0.1087f}, {0.1816f, -0.1766f}, {0.0333f, 0.2770f}, {0.5665f, 0.4109f}}}}},
    {"coded3",
     {3, 4, {{{0.4535f, -0.5312f, 0.2311f}, {0.1762f, 0.1184f, -0.2633f}, {0.0708f, -0.0509f, -0.2446f}, {0.3059f, 0.4340f, 0.4412f}}}}},
    {"coded4",
     {4, 3, {{{0.5702f, 0.4329f, -0.2155f, -0.3209f}, {-0.0522f, 0.2784f, -0.0712f, 0.0492f}, {0.3438f, -0.2495f, -0.1512f, 0.5329f}}}}},
};

/// Word j of a row's plane, as a file has it.
uint32_t plane_word(const PlaneMatrix& m, const PlaneSet& s, int64_t row, int p, int64_t j) {
  const int64_t n_words = m.words_per_row();
  if (s.order == PlaneOrder::kRows) return s.words[(row * s.code.n_planes + p) * n_words + j];
  const uint8_t* at = reinterpret_cast<const uint8_t*>(s.words) + plane_block_byte(row) +
                      ((row / kPlaneBlockRows * s.code.n_planes + p) * n_words + j) * 8 * 16;
  uint32_t word = 0;
  // Times 1 + 2^7 + 2^14 + 2^21: bit b of the nibble comes to bit 8b.
  for (int i = 0; i < 8; ++i) word |= ((uint32_t(at[16 * i] >> plane_block_shift(row) & 15) * 0x204081u) & 0x01010101u) << i;
  return word;
}

typedef uint32_t U32x4 __attribute__((vector_size(16)));
typedef uint16_t U16x8 __attribute__((vector_size(16)));
typedef uint8_t U8x16 __attribute__((vector_size(16)));

/// Of 64 bits in two words, those of `zero` and those of `one`: swaps the bit of their place that says which word with bit kBit of the
/// place in it.
template <int kBit>
inline void swap_places(U32x4& zero, U32x4& one) {
  constexpr int kDistance = 1 << kBit;
  constexpr uint32_t kClear = [] {
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 32; ++i) mask |= uint32_t(~i >> kBit & 1) << i;
    return mask;
  }();
  const U32x4 t = ((zero >> kDistance) ^ one) & kClear;
  one ^= t;
  zero ^= t << kDistance;
}

/// Words of two rows, 16 apart, to their nibbles: byte y of `low` is then inputs 4·2y … of both rows, of `high` inputs 4·(2y + 1) …
inline void to_nibbles(U32x4& low, U32x4& high) {
  // Places as bits of an index, the word first: (row, b1, b0, i2, i1, i0) becomes (i0, i2, i1, row, b1, b0).
  swap_places<2>(low, high);
  swap_places<4>(low, high);
  swap_places<1>(low, high);
  swap_places<3>(low, high);
  swap_places<0>(low, high);
}

/// v: four bytes of each of 16 rows, four rows a vector. to: the first bytes of all, in plane_block_byte's order; 32 bytes on the second …
inline void store_groups(const U32x4 (&v)[4], uint8_t* to) {
  for (int half = 0; half < 2; ++half) {
    U16x8 rows[2];  // of rows 2·half, + 1 (and 8, 9 …) with one, + 4 … with the other: their four bytes as pairs
    for (int k = 0; k < 2; ++k) {
      const U8x16 a = U8x16(v[k]), b = U8x16(v[k + 2]);
      // Rows 0 … 3 pair with 8 … 11; [b0 of 0, 8 | b1 | b2 | b3 | b0 of 1, 9 …] becomes [b of 0, 8 | 1, 9 | 2, 10 | 3, 11] for two b.
      const U16x8 first = U16x8(__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
      const U16x8 last = U16x8(__builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
      rows[k] = half ? __builtin_shufflevector(first, last, 2, 6, 10, 14, 3, 7, 11, 15)
                     : __builtin_shufflevector(first, last, 0, 4, 8, 12, 1, 5, 9, 13);
    }
    const U16x8 even = __builtin_shufflevector(rows[0], rows[1], 0, 1, 2, 3, 8, 9, 10, 11);
    const U16x8 odd = __builtin_shufflevector(rows[0], rows[1], 4, 5, 6, 7, 12, 13, 14, 15);
    std::memcpy(to + 64 * half, &even, sizeof even);
    std::memcpy(to + 64 * half + 32, &odd, sizeof odd);
  }
}

}  // namespace

void plane_row_words(const PlaneMatrix& m, const PlaneSet& s, int64_t row, uint32_t* to) {
  if (s.order == PlaneOrder::kRows) {
    const int64_t n = s.code.n_planes * m.words_per_row();
    std::memcpy(to, s.words + row * n, size_t(n) * 4);
    return;
  }
  for (int p = 0; p < s.code.n_planes; ++p) {
    for (int64_t j = 0; j < m.words_per_row(); ++j) *to++ = plane_word(m, s, row, p, j);
  }
}

void pack_plane_block(const uint32_t* words, int n_planes, int64_t words_per_row, int64_t block, uint8_t* to) {
  constexpr int64_t kHalf = kPlaneBlockRows / 2;
  const uint32_t* rows = words + block * kPlaneBlockRows * n_planes * words_per_row;
  for (int p = 0; p < n_planes; ++p) {
    for (int64_t j = 0; j < words_per_row; ++j, to += 8 * 16) {
      uint32_t nibbles[kPlaneBlockRows];
      for (int64_t r = 0; r < kPlaneBlockRows; ++r) nibbles[r] = rows[(r * n_planes + p) * words_per_row + j];
      U32x4 low[4], high[4];
      for (int64_t i = 0; i < 4; ++i) {
        std::memcpy(&low[i], nibbles + 4 * i, sizeof low[i]);
        std::memcpy(&high[i], nibbles + kHalf + 4 * i, sizeof high[i]);
        to_nibbles(low[i], high[i]);
      }
      store_groups(low, to);
      store_groups(high, to + 16);
    }
  }
}

void pack_plane_blocks(uint32_t* words, int64_t n_rows, int n_planes, int64_t words_per_row) {
  const int64_t block_words = kPlaneBlockRows * n_planes * words_per_row;
  std::vector<uint8_t> block(size_t(block_words) * 4);
  for (int64_t i = 0; i < n_rows / kPlaneBlockRows; ++i) {
    pack_plane_block(words, n_planes, words_per_row, i, block.data());
    std::memcpy(words + i * block_words, block.data(), block.size());
  }
}

std::span<const PlaneFormat> plane_formats() { return kPlaneFormats; }

const PlaneFormat* plane_format(std::string_view name) {
  for (const PlaneFormat& format : kPlaneFormats) {
    if (name == format.name) return &format;
  }
  return nullptr;
}

std::string plane_format_name(const PlaneCode& code) { return (code.n_taps > 1 ? "coded" : "plain") + std::to_string(code.n_planes); }

float RowScales::at(int64_t r) const { return floats ? floats[r] : half_to_float(halves[r]); }

int64_t plane_rows(int64_t n) {
  if (n % 32 == 0) {
    for (int64_t t = 256; t >= 64; t -= 32) {
      if (n % t == 0) return n;
    }
  }
  return (n + 63) / 64 * 64;
}

int64_t plane_segment(int64_t n_rows) {
  for (int64_t t = 256; t > 32; t -= 32) {
    if (n_rows % t == 0) return t;
  }
  return 32;
}

int plane_hadamard(int64_t k) { return k % 128 == 0 ? 128 : k % 64 == 0 ? 64 : k % 32 == 0 ? 32 : 0; }

uint64_t plane_set_bytes(int n_planes, int64_t n, int64_t k) {
  const uint64_t rows = uint64_t(plane_rows(n)), columns = uint64_t(plane_columns(k));
  return rows * uint64_t(n_planes) * columns / 8 + 2 * rows + 2 * columns;
}

void hadamard(float* x, int64_t n, int block) {
  const float scale = float(1 / std::sqrt(double(block)));
  for (float* end = x + n; x < end; x += block) {
    for (int stride = 1; stride < block; stride *= 2) {
      for (int i = 0; i < block; i += 2 * stride) {
        for (int j = i; j < i + stride; ++j) {
          const float a = x[j], b = x[j + stride];
          x[j] = a + b;
          x[j + stride] = a - b;
        }
      }
    }
    for (int i = 0; i < block; ++i) x[i] *= scale;
  }
}

void decode_plane_values(const PlaneMatrix& m, int set, int64_t r, float* to) {
  const PlaneSet& s = m.sets[set];
  const int64_t begin = r / m.segment * m.segment;
  std::fill(to, to + m.n_columns, 0.0f);
  for (int q = 0; q < s.code.n_taps; ++q) {
    const int64_t row = begin + ((r - begin - q) % m.segment + m.segment) % m.segment;
    for (int p = 0; p < s.code.n_planes; ++p) {
      const float tap = s.code.filter[size_t(q)][size_t(p)];
      for (int64_t j = 0; j < m.words_per_row(); ++j) {
        // Four bytes hold the bits of inputs b = 0 … 3; shifting all at once walks i.
        const uint32_t word = plane_word(m, s, row, p, j);
        float* at = to + 32 * j;
        for (int i = 0; i < 8; ++i) {
          for (int b = 0; b < 4; ++b) at[4 * i + b] += (word >> (8 * b + i) & 1) ? tap : -tap;
        }
      }
    }
  }
}

void decode_plane_row(const PlaneMatrix& m, int64_t r, float* to) {
  std::vector<float> values(size_t(m.n_columns));
  std::fill(to, to + m.n_columns, 0.0f);
  for (int set = 0; set < m.n_sets; ++set) {
    const PlaneSet& s = m.sets[set];
    decode_plane_values(m, set, r, values.data());
    const float row_scale = s.row_scale.at(r);
    for (int64_t k = 0; k < m.n_columns; ++k)
      to[k] += row_scale * values[size_t(k)] * (s.column_scale ? half_to_float(s.column_scale[k]) : 1.0f);
  }
  if (m.hadamard) {
    hadamard(to, m.n_columns, m.hadamard);
    for (int64_t k = 0; k < m.n_columns; ++k) to[k] *= plane_sign(m.signs, k);
  }
}

void decode_row(const TensorView& w, int64_t r, float* to, int64_t n) {
  if (!w.planes) return decode_row(w.dtype, w.row_bytes_at(r), to, n);
  if (n == w.planes->n_columns) return decode_plane_row(*w.planes, w.first_row + r, to);
  std::vector<float> row(size_t(w.planes->n_columns));
  decode_plane_row(*w.planes, w.first_row + r, row.data());
  std::copy_n(row.begin(), n, to);
}

}  // namespace sb
