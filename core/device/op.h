// The vocabulary of a plan: one struct an op, holding what does not change from run to run. Inputs and outputs are values of the plan,
// what changes from run to run is in Scalars. Activations are [T, D] in float32; T rows are tokens.
#pragma once

#include <cstdint>
#include <variant>

namespace sb {

enum class Activation : uint8_t { kSilu, kGeluTanh, kGeluErf, kRelu };
/// Which two elements of a head turn together: i and i + n_rot/2 (Hugging Face), or 2i and 2i + 1 (GGUF's llama).
enum class RopeStyle : uint8_t { kHalves, kPairs };
enum class KvPart : uint8_t { kKeys, kValues };

/// y[t] = scale · table[ids[t]], or table[position + t] when `by_position`.  table [V, D], ids i32 [T] → [T, D]
struct Embed {
  float scale = 1;
  bool by_position = false;
};
/// y = x · Wᵀ (+ bias).  x [T, K], W [N, K] of any stored type, bias [N] → [T, N]
struct MatMul {
  bool exact = false;  // float32 throughout; else a device may round the activations of many tokens to 8 bits with a scale per 32
};
/// y = x / sqrt(mean(x²) + eps) · (offset + g), over runs of `width` = |g| elements.  Zhang & Sennrich 2019.  x [T, D], g [width]
struct RmsNorm {
  float eps = 1e-6f;
  float offset = 0;
};
/// y = (x − mean) / sqrt(var + eps) · g + b.  Ba et al. 2016.  x [T, D], g [D], b [D]
struct LayerNorm {
  float eps = 1e-5f;
};
/// cos and sin of (position + t) · frequency[i] · …: y[t] = [cos × n, sin × n].  frequencies [n] → [T, 2n]
struct RopeTable {};
/// Turns pairs of each head by the table's angles; elements past n_rot = table's width stay.  Su et al. 2021.  x [T, H·dh], table [T,
/// n_rot]
struct Rope {
  int32_t head_dim = 0;
  RopeStyle style = RopeStyle::kHalves;
};
/// Stores x [T, K·dh] as tokens position … position + T − 1 of a layer's keys or values. No output.
struct CacheWrite {
  int32_t layer = 0;
  KvPart part = KvPart::kKeys;
};
/// softmax(scale · q·kᵀ, causal, last `window` tokens if > 0, soft cap if > 0) · v over the cache.  q [T, H·dh] → [T, H·dh]
/// Query head h reads key-value head h / (H / K).  softcap: s → cap · tanh(s / cap) (Gemma 2).
struct Attention {
  int32_t layer = 0;
  int32_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  float scale = 1;
  int32_t window = 0;
  float softcap = 0;
};
/// y = act(gate) · up.  [T, D], [T, D] → [T, D]
struct Glu {
  Activation act = Activation::kSilu;
};
/// y = act(x)
struct Activate {
  Activation act = Activation::kGeluTanh;
};
/// y = a + b
struct Add {};
/// y = cap · tanh(x / cap)
struct SoftCap {
  float cap = 0;
};
/// The last row.  [T, D] → [1, D]
struct LastRow {};

using Op = std::variant<Embed, MatMul, RmsNorm, LayerNorm, RopeTable, Rope, CacheWrite, Attention, Glu, Activate, Add, SoftCap, LastRow>;
inline constexpr size_t kOpCount = std::variant_size_v<Op>;
inline constexpr const char* kOpNames[kOpCount] = {"embed",     "matmul", "rms_norm", "layer_norm", "rope_table", "rope",    "cache_write",
                                                   "attention", "glu",    "activate", "add",        "softcap",    "last_row"};
inline const char* op_name(const Op& op) { return kOpNames[op.index()]; }

}  // namespace sb
