// One matrix to sign planes (docs/formats.md §2): rotation, error feedback along the inputs against their second moment (LDLQ, QuIP),
// a tail-biting Viterbi search down the rows (or the nearest level), and a closed-form refit of the row scales.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "formats/planes.h"
#include "quantize/booked.h"
#include "quantize/moments.h"

namespace sb {

/// Gives rows [first, first + n) of a matrix as the model has it, [n, K]; several threads ask at once.
using RowSource = std::function<void(int64_t first, int64_t n, float* to)>;

/// A matrix and its inputs' moment in the rotated basis, ready to be encoded at any number of bits.
struct RotatedMatrix {
  int64_t n_rows = 0, n_columns = 0;  // N, K padded
  int64_t segment = 0;
  int hadamard_block = 0;
  std::vector<uint32_t> signs;  // su as bits [K/32]; empty without rotation
  Booked<float> weights;        // W' transposed: [K][N]
  Booked<float> moment;         // H' damped [K][K]
  Booked<float> feedback;       // Lᵀ: [k][j] = L[j][k], unit diagonal [K][K]
  std::vector<float> pivots;    // D of H' = L·D·Lᵀ [K]

  /// Shapes and signs (from `seed`) of an [n, k] matrix.
  void shape(int64_t n, int64_t k, uint64_t seed);
  /// W' of `n` rows that `source` gives, zeros up to n_rows.
  void take_rows(const RowSource& source, int64_t n, int64_t k, ThreadPool& pool);
  /// H', its factors. `moment` [k, k] as the model has it; it is damped here. After shape().
  /// False when the moment is not positive definite even when damped (its numbers are then not finite).
  bool take_moment(Booked<float> own, int64_t k, ThreadPool& pool);
};

/// What encoding makes: one plane set's arrays.
struct EncodedSet {
  PlaneCode code;
  std::vector<uint32_t> words;         // [N, P, K/32]
  std::vector<uint16_t> row_scale;     // sv, f16 [N]
  std::vector<uint16_t> column_scale;  // c, f16 [K]
  /// tr(E H Eᵀ) and tr(W H Wᵀ): their ratio is the proxy that error feedback minimises.
  double error = 0, power = 0;

  PlaneSet view() const { return {code, words.data(), row_scale.data(), column_scale.data()}; }
  uint64_t n_bytes() const { return words.size() * 4 + row_scale.size() * 2 + column_scale.size() * 2; }
};

/// Encodes `target` [K][N], m.weights or what a base set left over of them, which is used up. Column scales are found on the way, or are
/// those given (float16 [K]).
EncodedSet encode(const RotatedMatrix& m, Booked<float> target, const PlaneCode& code, ThreadPool& pool,
                  std::span<const uint16_t> column_scale = {});

/// Rows of a matrix that lie there as floats when it is encoded in parts, and of the sample that its column scales come from.
struct PartRows {
  int64_t part = 8192, sample = 8192;
  static constexpr int64_t kWhole = 16384;  // up to so many rows a matrix is encoded in one
};
/// Encodes an [n, k] matrix in parts, for the memory of one: an embedding's floats outweigh a layer's many times. The column scales are
/// those of a sample of segments from all over the matrix, which is encoded first (8,192 rows know them to 1 %). `m` is left with its shape
/// and signs. False when the moment has no factor.
bool encode_in_parts(const RowSource& source, int64_t n, int64_t k, uint64_t seed, Booked<float> moment, const PlaneCode& code,
                     PartRows rows, ThreadPool& pool, RotatedMatrix& m, EncodedSet& out);

/// target −= what `base` decodes to, in the rotated basis [K][N]: what is left for a refinement.
void subtract(const RotatedMatrix& m, const EncodedSet& base, Booked<float>& target, ThreadPool& pool);

/// What a matrix should make up for: the inputs it was made for are not those it gets, and the stream that its product joins is off too.
/// W ← W + (a·W·(R − H) + b·stream)·(H + λI)⁻¹, with H the moment of the inputs that it gets, R the cross moment: least squares towards the
/// exact output, and towards the exact stream, by half. Whole shares over-fit (docs/quality.md). Frantar et al. 2022 solve the same normal
/// equations; the cross moment is GPTAQ's (Li et al. 2025).
class Correction {
 public:
  /// `own` and `cross` [k, k] are used up. `moments` outlives this. False when H is not positive definite.
  static bool prepare(Moments& moments, int64_t k, ThreadPool& pool, Correction& out, double input_share = 0.5, double stream_share = 0.5);
  /// Rows [first, first + n) of W, [n, k]; from any thread.
  void apply(int64_t first, int64_t n, float* weights) const;

 private:
  int64_t k_ = 0;
  Booked<float> lost_;    // a·(R − H) [K, K]
  Booked<float> factor_;  // U of H + λI = Uᵀ·U, mirrored: [i][j] = [j][i] = U[min, max]
  const Booked<float>* stream_ = nullptr;
  double stream_share_ = 0;
};

/// The value of each of the 4096 states: Σ C[i] · (bit i ? 1 : −1).
std::vector<float> state_values(const PlaneCode& code);

}  // namespace sb
