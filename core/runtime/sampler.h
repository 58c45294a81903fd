// From logits to the next token. Deterministic: same logits, options, history and seed give the same token on every machine. A GPU that
// draws for itself (kernels/sample.wgsl) takes the same marks, and float32 sums: a mark within some 10⁻⁶ of the edge between two tokens may
// fall to either.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/device.h"

namespace sb {

struct SamplerOptions {
  float temperature = 0;         // 0: greedy, the lowest id among equals
  int32_t top_k = 0;             // 0: off
  float top_p = 1;               // 1: off
  float min_p = 0;               // 0: off
  float repetition_penalty = 1;  // 1: off (Keskar et al. 2019: positive logits divided, negative multiplied)
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  /// Whether logits alone make the next token, whatever came before, so that a device can draw it.
  bool is_drawable() const { return options_.repetition_penalty == 1; }
  /// What a device needs to draw the next token, and the one after it with the next call. What it drew counts once take() is called;
  /// rewind() takes back what it drew in vain.
  Draw draw();
  void take() { state_ = after_.front(), after_.pop_front(); }
  void rewind() { after_.clear(); }
  /// Picks from `logits` [V], which it may change; `history` is the tokens so far (prompt and answer), for the repetition penalty.
  /// Order: penalty, temperature, top-k, top-p, min-p, draw. Errors: kLogitsNotFinite {position}: NaN or +inf anywhere.
  Result<int32_t> sample(std::span<float> logits, std::span<const int32_t> history);

 private:
  using State = std::array<uint64_t, 4>;

  SamplerOptions options_;
  State state_;                      // xoshiro256**, seeded by splitmix64
  std::deque<State> after_;          // each of the draws that were not taken yet
  std::vector<uint8_t> seen_;        // [V] scratch
  std::vector<int32_t> candidates_;  // scratch
};

}  // namespace sb
