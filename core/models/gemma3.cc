// Gemma 3, text (Gemma Team 2025): norms before and after each half of a layer, norms on q and k, five sliding-window layers to one that
// sees all, each kind with its own rotary base; embeddings scaled by √D, tied head.
#include <cmath>

#include "models/decoder.h"

namespace sb {
namespace {

std::string gemma3_gguf_name(std::string_view name) {
  return gguf_name(name, "model.layers.",
                   {{"input_layernorm", "attn_norm"},
                    {"self_attn.q_proj", "attn_q"},
                    {"self_attn.k_proj", "attn_k"},
                    {"self_attn.v_proj", "attn_v"},
                    {"self_attn.o_proj", "attn_output"},
                    {"self_attn.q_norm", "attn_q_norm"},
                    {"self_attn.k_norm", "attn_k_norm"},
                    {"post_attention_layernorm", "post_attention_norm"},
                    {"pre_feedforward_layernorm", "ffn_norm"},
                    {"post_feedforward_layernorm", "post_ffw_norm"},
                    {"mlp.gate_proj", "ffn_gate"},
                    {"mlp.up_proj", "ffn_up"},
                    {"mlp.down_proj", "ffn_down"}},
                   {{"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}});
}

struct Gemma3Config : DecoderConfig {
  std::vector<float> frequencies, window_frequencies;
  std::vector<bool> slides;  // a layer: whether it sees only the last `window` tokens
  double query_scale = 1;    // 1 / √query_pre_attn_scalar
  double attention_softcap = 0, logit_softcap = 0;
  float norm_offset = 1;  // weights are stored as gain − 1; GGUF's converter has added the 1
};

class Gemma3 final : public ModelGraph {
 public:
  Gemma3(Gemma3Config c, Weights w) : c_(std::move(c)), w_(std::move(w)) {}
  DecoderShape shape() const override { return c_; }

  void build(Plan& plan, const Pass& pass) const override {
    Ref turns = rope_table(plan, plan.constant(c_.frequencies)), window_turns = rope_table(plan, plan.constant(c_.window_frequencies));
    decoder_trip(
        plan, pass, c_, [&] { return embedding(plan, w_["model.embed_tokens"], {.scale = float(std::sqrt(double(c_.hidden)))}); },
        [&](Ref h, int64_t i) { return layer(plan, h, c_.slides[size_t(i)] ? window_turns : turns, i); },
        [&](Ref h) { return norm(plan, h, w_["model.norm"]); }, c_.tied_head ? w_["model.embed_tokens"] : w_["lm_head"],
        float(c_.logit_softcap));
  }

 private:
  Ref norm(Plan& plan, Ref x, const Weights& at) const { return rms_norm(plan, x, at, c_.norm_eps, c_.norm_offset); }

  Ref layer(Plan& plan, Ref x, Ref turns, int64_t i) const {  // x [T, D]
    const Weights at = w_["model.layers"][i];
    const Rope heads{int32_t(c_.head_dim), RopeStyle::kHalves};
    Ref h = norm(plan, x, at["input_layernorm"]);
    const auto qkv = linears(plan, h, {at["self_attn.q_proj"], at["self_attn.k_proj"], at["self_attn.v_proj"]});
    Ref q = norm(plan, qkv[0], at["self_attn.q_norm"]);  // [T, H·dh], a head a run
    Ref k = norm(plan, qkv[1], at["self_attn.k_norm"]);  // [T, K·dh]
    Ref a = cached_attention(plan, rope(plan, q, turns, heads), rope(plan, k, turns, heads), qkv[2],
                             {.layer = int32_t(i),
                              .n_heads = int32_t(c_.n_heads),
                              .n_kv_heads = int32_t(c_.n_kv_heads),
                              .head_dim = int32_t(c_.head_dim),
                              .scale = float(c_.query_scale),
                              .window = c_.slides[size_t(i)] ? c_.window : 0,
                              .softcap = float(c_.attention_softcap)});
    x = add(plan, x, norm(plan, linear(plan, a, at["self_attn.o_proj"]), at["post_attention_layernorm"]));
    h = norm(plan, x, at["pre_feedforward_layernorm"]);
    const auto gate_up = linears(plan, h, {at["mlp.gate_proj"], at["mlp.up_proj"]});  // [T, F]
    Ref mlp = linear(plan, glu(plan, gate_up[0], gate_up[1], {Activation::kGeluTanh}), at["mlp.down_proj"]);
    return add(plan, x, norm(plan, mlp, at["post_feedforward_layernorm"]));
  }

  Gemma3Config c_;
  Weights w_;
};

Result<std::unique_ptr<ModelGraph>> open_gemma3(const Config& config, WeightStore& weights) {
  Gemma3Config c;
  SB_TRY(static_cast<DecoderConfig&>(c), read_decoder_config(config));
  const Weights w(weights, config.container() == Container::kGguf ? gemma3_gguf_name : nullptr);
  c.norm_offset = config.gguf_conventions() ? 0 : 1;
  c.tied_head = !w["lm_head"].has("weight");
  SB_TRY(int64_t window, config.dimension_or("sliding_window", 0));
  c.window = int32_t(window);
  SB_TRY(c.attention_softcap, config.number_or("attn_logit_softcapping", 0));
  SB_TRY(c.logit_softcap, config.number_or("final_logit_softcapping", 0));
  SB_TRY(double query_scalar, config.number_or("query_pre_attn_scalar", double(c.head_dim)));
  if (!(query_scalar > 0)) return config.invalid("query_pre_attn_scalar", "it must be above 0");
  c.query_scale = 1 / std::sqrt(query_scalar);

  // Which layers slide: a list, or a pattern of five that do and one that does not.
  SB_TRY(int64_t pattern,
         config.dimension_or(config.has("_sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern", 6));
  const Json* types = config.find("layer_types");
  for (int64_t i = 0; i < c.n_layers; ++i) c.slides.push_back((i + 1) % pattern != 0);
  if (types) {
    if (!types->is_array() || int64_t(types->size()) != c.n_layers)
      return config.invalid("layer_types", "it must have an entry for every layer");
    for (int64_t i = 0; i < c.n_layers; ++i) c.slides[size_t(i)] = (*types)[size_t(i)] == "sliding_attention";
  }

  // Rotary bases: rope_parameters by kind of layer (transformers 5), or two flat keys (before).
  const Json* parameters = rope_parameters(config);
  const Json* full = parameters ? json_find(*parameters, "full_attention") : nullptr;
  const Json* sliding = parameters ? json_find(*parameters, "sliding_attention") : nullptr;
  SB_TRY(double theta, rope_theta(config, full ? full : parameters, 1000000.0));
  SB_TRY(double window_theta, config.number_or("rope_local_base_freq", 10000.0));
  if (sliding) window_theta = json_number(*sliding, "rope_theta").value_or(window_theta);
  if (!(window_theta > 0)) return config.invalid("rope_local_base_freq", "it must be above 0");
  SB_TRY(c.frequencies, rope_frequencies(config, full ? full : parameters, theta, c.head_dim, weights));
  for (int64_t i = 0; i < c.head_dim / 2; ++i)
    c.window_frequencies.push_back(float(std::pow(window_theta, -2.0 * double(i) / double(c.head_dim))));
  return std::make_unique<Gemma3>(std::move(c), w);
}

}  // namespace

extern const Family kGemma3;
const Family kGemma3 = {"gemma3", {"gemma3_text", "gemma3"}, open_gemma3};

}  // namespace sb
