// Qwen2 and Qwen2.5 (Yang et al. 2024): Llama's layer with biases on q, k and v, and sliding windows in the upper layers where the
// configuration turns them on.
#include <cmath>

#include "models/decoder.h"
#include "models/qwen.h"

namespace sb {
namespace {

class Qwen2 final : public ModelGraph {
 public:
  Qwen2(QwenConfig c, Weights w) : c_(std::move(c)), w_(std::move(w)) {}
  DecoderShape shape() const override { return c_; }

  void build(Plan& plan, const Pass& pass) const override {
    Ref x = embedding(plan, w_["model.embed_tokens"]);  // [T, D]
    Ref turns = rope_table(plan, plan.constant(c_.frequencies));
    decoder_trip(
        plan, pass, c_, x, [&](Ref h, int64_t i) { return layer(plan, h, turns, i); },
        [&](Ref h) { return rms_norm(plan, h, w_["model.norm"], c_.norm_eps); }, c_.tied_head ? w_["model.embed_tokens"] : w_["lm_head"]);
  }

 private:
  Ref layer(Plan& plan, Ref x, Ref turns, int64_t i) const {  // x [T, D]
    const Weights at = w_["model.layers"][i];
    const Rope heads{int32_t(c_.head_dim), RopeStyle::kHalves};
    Ref h = rms_norm(plan, x, at["input_layernorm"], c_.norm_eps);
    Ref q = rope(plan, linear(plan, h, at["self_attn.q_proj"]), turns, heads);  // [T, H·dh]
    Ref k = rope(plan, linear(plan, h, at["self_attn.k_proj"]), turns, heads);  // [T, K·dh]
    Ref v = linear(plan, h, at["self_attn.v_proj"]);                            // [T, K·dh]
    Ref a = cached_attention(plan, q, k, v,
                             {.layer = int32_t(i),
                              .n_heads = int32_t(c_.n_heads),
                              .n_kv_heads = int32_t(c_.n_kv_heads),
                              .head_dim = int32_t(c_.head_dim),
                              .scale = float(1 / std::sqrt(double(c_.head_dim))),
                              .window = c_.window_of(i)});
    x = add(plan, x, linear(plan, a, at["self_attn.o_proj"]));
    h = rms_norm(plan, x, at["post_attention_layernorm"], c_.norm_eps);
    return add(plan, x,
               linear(plan, glu(plan, linear(plan, h, at["mlp.gate_proj"]), linear(plan, h, at["mlp.up_proj"]), {Activation::kSilu}),
                      at["mlp.down_proj"]));
  }

  QwenConfig c_;
  Weights w_;
};

Result<std::unique_ptr<ModelGraph>> open_qwen2(const Config& config, WeightStore& weights) {
  const Weights w(weights, config.container() == Container::kGguf ? qwen_gguf_name : nullptr);
  SB_TRY(QwenConfig c, read_qwen_config(config, w));
  return std::make_unique<Qwen2>(std::move(c), w);
}

}  // namespace

extern const Family kQwen2;
const Family kQwen2 = {"qwen2", {"qwen2"}, open_qwen2};

}  // namespace sb
