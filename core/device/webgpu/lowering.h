// From a plan's nodes to GPU steps: matrix products and attention are dispatches, what needs one token's row at a time is chained into one
// dispatch (kernels/rows). Nothing is submitted here.
#pragma once

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "device/plan.h"
#include "device/webgpu/gpu_weights.h"

namespace sb {

/// A float among the words of a kernel's parameters.
inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

inline constexpr uint32_t kGpuNone = 0xffffffffu;
/// Uniform words of a step.
inline constexpr size_t kGpuParams = 128;
/// Where the arena's words begin: the device's choice, then the ids.
inline constexpr uint32_t kGpuChoiceAt = 0, kGpuIdsAt = 16;

struct GpuStep {
  std::string name;              // what it does, for profiles
  std::string text;              // WGSL
  std::vector<uint32_t> params;  // at most kGpuParams
  GpuId weights[2] = {0, 0};     // bindings 4 and 5
  int32_t kv_layer = -1;         // or keys and values of this layer there
  uint32_t groups[3] = {1, 1, 1};
  // Behind many tokens, attention's keys are split among workgroups, and a step puts together what they leave.
  bool is_split = false, merges = false;
};

/// Among how many workgroups a head's keys are split, for a token at a position. Two of 256 keys or more are slower than one of both until
/// there are about a thousand (docs/performance.md).
inline constexpr uint32_t kSplitFrom = 1024, kMostSplits = 16;
constexpr uint32_t n_splits(uint32_t position) {
  return position < kSplitFrom ? 1 : position / 256 < kMostSplits ? position / 256 : kMostSplits;
}

/// cos and sin of a RopeTable node, which the host computes: kernels' sines may be off by 2⁻¹¹.
struct GpuAngles {
  uint32_t at = 0;  // word of the arena
  std::vector<float> frequencies;
};

struct GpuLowered {
  std::vector<GpuStep> steps;
  std::vector<GpuAngles> angles;
  std::vector<std::shared_ptr<const GpuMatrix>> matrices;  // held as long as the program lives
  std::vector<uint32_t> value_at;                          // word of each activation in the arena
  std::vector<uint32_t> value_stride;                      // words a row
  uint64_t arena_words = 0;
};

/// `half`: the cache's elements. Errors: kOpUnsupported, kMemoryExhausted.
Result<GpuLowered> lower_to_gpu(const Plan& plan, GpuWeights& weights, bool half);
/// The texts of a plan's steps. Reads no weight.
std::vector<std::string> gpu_texts(const Plan& plan, bool half);
/// What a plan takes. Reads no weight; a matrix in several pieces has more steps than are counted.
struct GpuSize {
  uint64_t arena_words = 0, n_steps = 0;
};
GpuSize gpu_size(const Plan& plan);

}  // namespace sb
