// Llama and its kin (Touvron et al. 2023): pre-norm decoder, rotary positions, grouped-query attention, gated MLP. model_type "llama"
// (SmolLM2 too) and "mistral", which differs by its sliding window only (Jiang et al. 2023).
#include <cmath>

#include "models/decoder.h"

namespace sb {
namespace {

std::string llama_gguf_name(std::string_view name) {
  return gguf_name(name, "model.layers.",
                   {{"input_layernorm", "attn_norm"},
                    {"self_attn.q_proj", "attn_q"},
                    {"self_attn.k_proj", "attn_k"},
                    {"self_attn.v_proj", "attn_v"},
                    {"self_attn.o_proj", "attn_output"},
                    {"post_attention_layernorm", "ffn_norm"},
                    {"mlp.gate_proj", "ffn_gate"},
                    {"mlp.up_proj", "ffn_up"},
                    {"mlp.down_proj", "ffn_down"}},
                   {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}});
}

struct LlamaConfig : DecoderConfig {
  RopeStyle rope_style = RopeStyle::kHalves;
  std::vector<float> frequencies;
};

class Llama final : public ModelGraph {
 public:
  Llama(LlamaConfig c, Weights w) : c_(std::move(c)), w_(std::move(w)) {}
  DecoderShape shape() const override { return c_; }

  void build(Plan& plan, const Pass& pass) const override {
    Ref turns = rope_table(plan, plan.constant(c_.frequencies));
    decoder_trip(
        plan, pass, c_, [&] { return embedding(plan, w_["model.embed_tokens"]); },
        [&](Ref h, int64_t i) { return layer(plan, h, turns, i); }, [&](Ref h) { return rms_norm(plan, h, w_["model.norm"], c_.norm_eps); },
        c_.tied_head ? w_["model.embed_tokens"] : w_["lm_head"]);
  }

 private:
  Ref layer(Plan& plan, Ref x, Ref turns, int64_t i) const {  // x [T, D]
    const Weights at = w_["model.layers"][i];
    const Rope heads{int32_t(c_.head_dim), c_.rope_style};
    Ref h = rms_norm(plan, x, at["input_layernorm"], c_.norm_eps);
    const auto qkv = linears(plan, h, {at["self_attn.q_proj"], at["self_attn.k_proj"], at["self_attn.v_proj"]});
    Ref q = rope(plan, qkv[0], turns, heads);  // [T, H·dh]
    Ref k = rope(plan, qkv[1], turns, heads);  // [T, K·dh]
    Ref a = cached_attention(plan, q, k, qkv[2],
                             {.layer = int32_t(i),
                              .n_heads = int32_t(c_.n_heads),
                              .n_kv_heads = int32_t(c_.n_kv_heads),
                              .head_dim = int32_t(c_.head_dim),
                              .scale = float(1 / std::sqrt(double(c_.head_dim))),
                              .window = c_.window});
    x = add(plan, x, linear(plan, a, at["self_attn.o_proj"]));
    h = rms_norm(plan, x, at["post_attention_layernorm"], c_.norm_eps);
    const auto gate_up = linears(plan, h, {at["mlp.gate_proj"], at["mlp.up_proj"]});  // [T, F]
    return add(plan, x, linear(plan, glu(plan, gate_up[0], gate_up[1], {Activation::kSilu}), at["mlp.down_proj"]));
  }

  LlamaConfig c_;
  Weights w_;
};

Result<std::unique_ptr<ModelGraph>> open_llama(const Config& config, WeightStore& weights) {
  LlamaConfig c;
  SB_TRY(static_cast<DecoderConfig&>(c), read_decoder_config(config));
  const bool gguf = config.gguf_conventions();
  const Weights w(weights, config.container() == Container::kGguf ? llama_gguf_name : nullptr);
  c.tied_head = !w["lm_head"].has("weight");
  // GGUF calls Mistral "llama" too. Hugging Face's Llama knows no window, whatever config.json says.
  if (config.architecture() == "mistral" || gguf) {
    SB_TRY(int64_t window, config.dimension_or("sliding_window", 0));
    c.window = int32_t(window);
  }
  // GGUF's converter reorders q and k of "llama" so that pairs lie side by side.
  c.rope_style = gguf ? RopeStyle::kPairs : RopeStyle::kHalves;
  const Json* parameters = rope_parameters(config);
  SB_TRY(double theta, rope_theta(config, parameters, 10000.0));
  SB_TRY(int64_t n_rot, config.dimension_or("rope_dims", c.head_dim));
  if (n_rot > c.head_dim || n_rot % 2) return config.invalid("rope_dims", "it must be even and at most head_dim");
  SB_TRY(c.frequencies, rope_frequencies(config, parameters, theta, n_rot, weights));
  return std::make_unique<Llama>(std::move(c), w);
}

}  // namespace

extern const Family kLlama;
const Family kLlama = {"llama", {"llama", "mistral"}, open_llama};

}  // namespace sb
