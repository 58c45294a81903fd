// One matrix to sign planes (docs/formats.md §2): rotation, error feedback along the inputs against their second moment (LDLQ, QuIP),
// a tail-biting Viterbi search down the rows (or the nearest level), and a closed-form refit of the row scales.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "formats/planes.h"

namespace sb {

/// Threads that work on one matrix together: every one of them calls the function with its own number.
struct Team {
  int thread = 0, n_threads = 1;
  SpinBarrier* barrier = nullptr;  // of n_threads; unused when alone
  void meet() const {
    if (n_threads > 1) barrier->wait();
  }
};

/// A matrix and its inputs' moment in the rotated basis, ready to be encoded at any number of bits.
struct RotatedMatrix {
  int64_t n_rows = 0, n_columns = 0;  // N, K padded
  int64_t segment = 0;
  int hadamard_block = 0;
  std::vector<uint32_t> signs;  // su as bits [K/32]; empty without rotation
  std::vector<float> weights;   // W' transposed: [K][N]
  std::vector<float> moment;    // H' damped [K][K]
  std::vector<float> feedback;  // Lᵀ: [k][j] = L[j][k], unit diagonal [K][K]
  std::vector<float> pivots;    // D of H' = L·D·Lᵀ [K]

  /// `weights` [n, k] and `moment` [k, k] as the model has them; `moment` is damped here. The signs come from `seed`.
  /// False when the moment is not positive definite even when damped (its numbers are then not finite).
  static bool rotate(const float* weights, int64_t n, int64_t k, const float* moment, uint64_t seed, RotatedMatrix& out);
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

/// Working memory of one encode(), shared by its team.
struct EncodeWork {
  std::vector<float> errors;           // E transposed [K][N]
  std::vector<double> column_squares;  // [2][threads]
  std::vector<double> error, power;    // [threads]
};

/// Encodes m.weights, or `target` [K][N] in their stead (what a base set left over). Called by every thread of the team with the same
/// arguments; `out` and `work` are set up by thread 0.
void encode(const RotatedMatrix& m, const float* target, const PlaneCode& code, const Team& team, EncodeWork& work, EncodedSet& out);

/// target ← W' − Ŵ' of `base`, transposed [K][N], for the refinement.
std::vector<float> residual(const RotatedMatrix& m, const EncodedSet& base);

/// What a matrix should make up for: the inputs it was made for are not those it gets, and the stream that its product joins is off too.
struct Correction {
  const float* cross = nullptr;   // R = Σ exact xᵀ, mean over tokens [K, K]
  const float* stream = nullptr;  // Σ (exact − own residual) xᵀ, mean over tokens [N, K]; null where the product joins no stream
  double input_share = 0.5, stream_share = 0.5;
};
/// W ← W + (a·W·(R − H) + b·stream)·(H + λI)⁻¹, with H the moment of the inputs that it gets: least squares towards the exact output, and
/// towards the exact stream, by half. Whole shares over-fit (docs/quality.md). Frantar et al. 2022 solve the same normal equations; the
/// cross moment is GPTAQ's (Li et al. 2025). False when H is not positive definite.
bool correct(std::vector<float>& weights, int64_t n, int64_t k, const float* moment, const Correction& correction);

/// The value of each of the 4096 states: Σ C[i] · (bit i ? 1 : −1).
std::vector<float> state_values(const PlaneCode& code);

}  // namespace sb
