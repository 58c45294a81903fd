#include "models/qwen.h"

namespace sb {

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

Result<QwenConfig> read_qwen_config(const Config& config, const Weights& w) {
  QwenConfig c;
  SB_TRY(static_cast<DecoderConfig&>(c), read_decoder_config(config, w.store()));
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
  SB_TRY(c.frequencies, rope_frequencies(config, parameters, theta, c.head_dim, w.store()));
  return c;
}

}  // namespace sb
