// Low-bit weights as sign planes with a filter down the rows (docs/formats.md §1): the one family behind plain2 … coded4 and their
// refinements. A product never decodes a weight: one-bit products, then the filter. This header is layout, sizes and scalar decoding.
//
//   W[r,k] = sv[r] · c[k] · Σ_q Σ_p C[q][p] · S_p[s + ((r − s − q) mod T), k],  S_p = ±1, s = T·⌊r/T⌋, then · Had · diag(su)
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

namespace sb {

inline constexpr int kMaxPlanes = 4, kMaxTaps = 6;
/// State of the trellis behind the coded formats: planes · taps bits.
inline constexpr int kStateBits = 12;

/// How many planes and taps, and the filter over them.
struct PlaneCode {
  int n_planes = 0, n_taps = 0;
  std::array<std::array<float, kMaxPlanes>, kMaxTaps> filter{};  // C [J, P]
};

/// A row of the table: what the file and the user call a code.
struct PlaneFormat {
  const char* name;
  PlaneCode code;
};
/// plain2, plain3, plain4, coded2, coded3, coded4.
std::span<const PlaneFormat> plane_formats();
/// nullptr for an unknown name.
const PlaneFormat* plane_format(std::string_view name);
/// plain and coded differ by their taps: "coded" + planes.
std::string plane_format_name(const PlaneCode& code);

/// How a set's bits lie in memory; the bytes are as many.
enum class PlaneOrder : uint8_t {
  kRows,    // as in a file: words [N, P, K/32]; bit 8b+i of word j is input 32j + 4i + b, 1 = +1
  kBlocks,  // for table lookup: [N/32][P][K/4] × 16 bytes of 32 rows × 4 inputs; see plane_block_byte
};

/// sv: halves as the quantiser writes them, or floats where an imported model's scales are no halves. Owns nothing.
struct RowScales {
  const uint16_t* halves = nullptr;  // f16 [N]
  const float* floats = nullptr;     // f32 [N]; one of the two is there

  RowScales() = default;
  RowScales(const uint16_t* from) : halves(from) {}
  RowScales(const float* from) : floats(from) {}
  float at(int64_t r) const;
};

/// One set of planes. Owns nothing.
struct PlaneSet {
  PlaneCode code;
  const uint32_t* words = nullptr;         // in `order`
  RowScales row_scale;                     // sv [N]
  const uint16_t* column_scale = nullptr;  // c, f16 [K]; null: all 1
  PlaneOrder order = PlaneOrder::kRows;
  const DeviceRows* there = nullptr;  // the words [N, P, K/32] in rows' order, where a device keeps them; `words` is null then
};

/// A matrix of N outputs and K inputs, both padded as stored. Owns nothing.
struct PlaneMatrix {
  int64_t n_rows = 0, n_columns = 0;  // N a multiple of 64 or of its segment, K a multiple of 32
  int64_t segment = 0;                // T
  int hadamard = 0;                   // block of the input rotation; 0: none
  const uint32_t* signs = nullptr;    // su as bits [K/32], order as the planes'; null without rotation
  int n_sets = 1;                     // 2: base and refine, which add up
  int max_sets = 1;                   // with the refinement that the folder has, loaded or not
  PlaneSet sets[2];

  int64_t words_per_row() const { return n_columns / 32; }
};

/// N rounded up so that a segment exists: N itself where some T (a multiple of 32, 64 ≤ T ≤ 256) divides it, else a multiple of 64.
int64_t plane_rows(int64_t n);
/// T of a padded N: its largest divisor of at most 256 that is a multiple of 32.
int64_t plane_segment(int64_t n_rows);
inline int64_t plane_columns(int64_t k) { return (k + 31) / 32 * 32; }
/// Block of the input rotation for K inputs: 128, 64 or 32, whichever divides K first; 0 where none does.
int plane_hadamard(int64_t k);
/// Bytes of one set of an [n, k] matrix: planes, sv and c; without su.
uint64_t plane_set_bytes(int n_planes, int64_t n, int64_t k);

inline constexpr int64_t kPlaneBlockRows = 32;
/// Where row r of a block has its nibble in the 16 bytes of 4 inputs: bit b of it is input b. Rows 0–7 and 8–15 (low nibbles), 16–23 and
/// 24–31 (high) alternate, so that sums in 16-bit lanes come out as runs of eight rows.
constexpr int plane_block_byte(int64_t r) { return int(r % 8 * 2 + r % 16 / 8); }
constexpr int plane_block_shift(int64_t r) { return int(r % 32 / 16 * 4); }
/// One block of a set in rows' order to blocks' order: rows 32·block … of P planes. to: bytes [P][K/4][16]
void pack_plane_block(const uint32_t* words, int n_planes, int64_t words_per_row, int64_t block, uint8_t* to);
/// A whole set from rows' order to blocks' order, in place. n_rows is a multiple of 32.
void pack_plane_blocks(uint32_t* words, int64_t n_rows, int n_planes, int64_t words_per_row);

/// The words of a row in rows' order, [P, K/32], from a set in either order.
void plane_row_words(const PlaneMatrix& m, const PlaneSet& s, int64_t row, uint32_t* to);

/// Position of input k's bit in its word.
constexpr int plane_bit(int64_t k) { return int(8 * (k % 4) + (k % 32) / 4); }
inline float plane_sign(const uint32_t* words, int64_t k) { return (words[k / 32] >> plane_bit(k) & 1) ? 1.0f : -1.0f; }

/// x ← x · Had, in place, over n_blocks consecutive blocks: orthonormal Sylvester, its own inverse.
void hadamard(float* x, int64_t n, int block);

/// Row r in the rotated basis, without sv and c: V[r, ·] of one set. to [K]
void decode_plane_values(const PlaneMatrix& m, int set, int64_t r, float* to);
/// Row r as the source had it: scales, inverse rotation, both sets added. to [K] (padded).
void decode_plane_row(const PlaneMatrix& m, int64_t r, float* to);

/// The first n elements of row r of any stored matrix, decoded: by its row format, or by its planes.
void decode_row(const TensorView& w, int64_t r, float* to, int64_t n);

}  // namespace sb
