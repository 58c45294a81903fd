// From logits to the next token. Deterministic: same logits, options, history and seed give the same token on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

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
  /// Whether the next token is always the likeliest, whatever came before.
  bool is_greedy() const { return !(options_.temperature > 0) && options_.repetition_penalty == 1; }
  /// Picks from `logits` [V], which it may change; `history` is the tokens so far (prompt and answer), for the repetition penalty.
  /// Order: penalty, temperature, top-k, top-p, min-p, draw. Errors: kLogitsNotFinite {position}: NaN or +inf anywhere.
  Result<int32_t> sample(std::span<float> logits, std::span<const int32_t> history);

 private:
  SamplerOptions options_;
  uint64_t state_[4];                // xoshiro256**, seeded by splitmix64
  std::vector<uint8_t> seen_;        // [V] scratch
  std::vector<int32_t> candidates_;  // scratch
};

}  // namespace sb
