// Qwen2 and Qwen3 (Yang et al. 2024, 2025): Llama's layer; Qwen2 has biases on q, k and v, Qwen3 a root mean square norm on each head of q
// and k before they turn, and a head size of its own. Upper layers slide a window where the configuration turns that on.
#include <cmath>

#include "models/decoder.h"

namespace sb {
namespace {

std::string qwen_gguf_name(std::string_view name) {
  return gguf_name(name, "model.layers.",
                   {{"input_layernorm", "attn_norm"},
                    {"self_attn.q_proj", "attn_q"},
                    {"self_attn.k_proj", "attn_k"},
                    {"self_attn.v_proj", "attn_v"},
                    {"self_attn.o_proj", "attn_output"},
                    {"self_attn.q_norm", "attn_q_norm"},
                    {"self_attn.k_norm", "attn_k_norm"},
                    {"post_attention_layernorm", "ffn_norm"},
                    {"mlp.gate_proj", "ffn_gate"},
                    {"mlp.up_proj", "ffn_up"},
                    {"mlp.down_proj", "ffn_down"}},
                   {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}});
}

struct QwenConfig : DecoderConfig {
  bool norms_heads = false;  // Qwen3
  std::vector<float> frequencies;
  std::vector<bool> slides;  // a layer: whether it sees only the last `window` tokens

  int32_t window_of(int64_t layer) const { return slides[size_t(layer)] ? window : 0; }
};

class Qwen final : public ModelGraph {
 public:
  Qwen(QwenConfig c, Weights w) : c_(std::move(c)), w_(std::move(w)) {}
  DecoderShape shape() const override { return c_; }

  void build(Plan& plan, const Pass& pass) const override {
    Ref turns = rope_table(plan, plan.constant(c_.frequencies));
    decoder_trip(
        plan, pass, c_, [&] { return embedding(plan, w_["model.embed_tokens"]); },
        [&](Ref h, int64_t i) { return layer(plan, h, turns, i); }, [&](Ref h) { return rms_norm(plan, h, w_["model.norm"], c_.norm_eps); },
        c_.tied_head ? w_["model.embed_tokens"] : w_["lm_head"]);
  }

 private:
  /// Queries or keys, turned.
  Ref heads(Plan& plan, Ref x, const Weights& norm, Ref turns) const {  // x [T, H·dh] or [T, K·dh]
    if (c_.norms_heads) x = rms_norm(plan, x, norm, c_.norm_eps);       // a head a run
    return rope(plan, x, turns, {int32_t(c_.head_dim), RopeStyle::kHalves});
  }

  Ref layer(Plan& plan, Ref x, Ref turns, int64_t i) const {  // x [T, D]
    const Weights at = w_["model.layers"][i];
    Ref h = rms_norm(plan, x, at["input_layernorm"], c_.norm_eps);
    const auto qkv = linears(plan, h, {at["self_attn.q_proj"], at["self_attn.k_proj"], at["self_attn.v_proj"]});
    Ref q = heads(plan, qkv[0], at["self_attn.q_norm"], turns);  // [T, H·dh]
    Ref k = heads(plan, qkv[1], at["self_attn.k_norm"], turns);  // [T, K·dh]
    Ref a = cached_attention(plan, q, k, qkv[2],
                             {.layer = int32_t(i),
                              .n_heads = int32_t(c_.n_heads),
                              .n_kv_heads = int32_t(c_.n_kv_heads),
                              .head_dim = int32_t(c_.head_dim),
                              .scale = float(1 / std::sqrt(double(c_.head_dim))),
                              .window = c_.window_of(i)});
    x = add(plan, x, linear(plan, a, at["self_attn.o_proj"]));
    h = rms_norm(plan, x, at["post_attention_layernorm"], c_.norm_eps);
    const auto gate_up = linears(plan, h, {at["mlp.gate_proj"], at["mlp.up_proj"]});  // [T, F]
    return add(plan, x, linear(plan, glu(plan, gate_up[0], gate_up[1], {Activation::kSilu}), at["mlp.down_proj"]));
  }

  QwenConfig c_;
  Weights w_;
};

Result<std::unique_ptr<ModelGraph>> open_qwen(const Config& config, WeightStore& weights) {
  const Weights w(weights, config.container() == Container::kGguf ? qwen_gguf_name : nullptr);
  QwenConfig c;
  SB_TRY(static_cast<DecoderConfig&>(c), read_decoder_config(config));
  c.norms_heads = config.architecture() == "qwen3";
  c.tied_head = !w["lm_head"].has("weight");
  SB_TRY(bool use_window, config.flag_or("use_sliding_window", false));
  c.slides.assign(size_t(c.n_layers), false);
  if (use_window) {
    SB_TRY(int64_t window, config.dimension_or("sliding_window", 0));
    c.window = int32_t(window);
    SB_TRY(int64_t first, config.dimension_or("max_window_layers", c.n_layers));
    for (int64_t i = first; i < c.n_layers; ++i) c.slides[size_t(i)] = true;
  }
  const Json* parameters = rope_parameters(config);
  SB_TRY(double theta, rope_theta(config, parameters, 10000.0));
  SB_TRY(c.frequencies, rope_frequencies(config, parameters, theta, c.head_dim, weights));
  return std::make_unique<Qwen>(std::move(c), w);
}

}  // namespace

extern const Family kQwen;
const Family kQwen = {"qwen", {"qwen2", "qwen3"}, open_qwen};

}  // namespace sb
