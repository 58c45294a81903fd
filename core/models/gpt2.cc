// GPT-2 (Radford et al. 2019): learned positions, layer norms with bias, one matrix for q, k and v, a plain MLP with GELU, tied head.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "models/decoder.h"

namespace sb {
namespace {

std::string gpt2_gguf_name(std::string_view name) {
  return gguf_name(name, "transformer.h.",
                   {{"ln_1", "attn_norm"},
                    {"attn.c_attn", "attn_qkv"},
                    {"attn.c_proj", "attn_output"},
                    {"ln_2", "ffn_norm"},
                    {"mlp.c_fc", "ffn_up"},
                    {"mlp.c_proj", "ffn_down"}},
                   {{"transformer.wte", "token_embd"},
                    {"transformer.wpe", "position_embd"},
                    {"transformer.ln_f", "output_norm"},
                    {"lm_head", "output"}});
}

constexpr int64_t kMostLayers = 1024;

class Gpt2 final : public ModelGraph {
 public:
  Gpt2(DecoderConfig c, Weights root, Weights w) : c_(c), root_(std::move(root)), w_(std::move(w)) {}
  DecoderShape shape() const override { return c_; }

  void build(Plan& plan, const Pass& pass) const override {
    decoder_trip(
        plan, pass, c_, [&] { return add(plan, embedding(plan, w_["wte"]), embedding(plan, w_["wpe"], {.by_position = true})); },
        [&](Ref h, int64_t i) { return layer(plan, h, i); }, [&](Ref h) { return layer_norm(plan, h, w_["ln_f"], c_.norm_eps); },
        c_.tied_head ? w_["wte"] : root_["lm_head"]);
  }

 private:
  Ref layer(Plan& plan, Ref x, int64_t i) const {  // x [T, D]
    const Weights at = w_["h"][i];
    Ref qkv = linear(plan, layer_norm(plan, x, at["ln_1"], c_.norm_eps), at["attn.c_attn"]);  // [T, 3·D]
    if (!qkv) return {};
    const int64_t d = plan.shape(qkv)[1] / 3;
    Ref a = cached_attention(plan, plan.columns(qkv, 0, d), plan.columns(qkv, d, d), plan.columns(qkv, 2 * d, d),
                             {.layer = int32_t(i),
                              .n_heads = int32_t(c_.n_heads),
                              .n_kv_heads = int32_t(c_.n_heads),
                              .head_dim = int32_t(c_.head_dim),
                              .scale = float(1 / std::sqrt(double(c_.head_dim)))});
    x = add(plan, x, linear(plan, a, at["attn.c_proj"]));
    Ref h = linear(plan, layer_norm(plan, x, at["ln_2"], c_.norm_eps), at["mlp.c_fc"]);  // [T, F]
    return add(plan, x, linear(plan, activate(plan, h, {Activation::kGeluTanh}), at["mlp.c_proj"]));
  }

  DecoderConfig c_;
  Weights root_, w_;
};

/// Hugging Face keeps these matrices as [K, N] (its Conv1D); a linear layer wants [N, K], which is how GGUF has them.
Status transpose(WeightTensor& tensor) {
  if (dtype_row(tensor.dtype).block != 1 || tensor.shape.rank() != 2) {
    return err(Code::kShapeMismatch, {{"what", tensor.name}, {"shape", tensor.shape.text()}, {"expected", "a float matrix [K, N]"}});
  }
  const int64_t k = tensor.shape[0], n = tensor.shape[1];
  const size_t size = size_t(dtype_row(tensor.dtype).bytes_per_block);
  SB_TRY(Block turned, Block::take(Tag::kWeights, tensor.block.size()));
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < n; ++j)
      std::memcpy(turned.data() + size_t(j * k + i) * size, tensor.block.data() + size_t(i * n + j) * size, size);
  }
  tensor.block = std::move(turned);
  tensor.shape = {n, k};
  return {};
}

/// The first published files leave the "transformer." away.
Weights body_of(const Weights& root, bool gguf) { return root["wte"].has("weight") && !gguf ? root : root["transformer"]; }

Status turn_matrices(const Config& config, WeightStore& weights) {
  SB_TRY(const int64_t n_layers, config.dimension("n_layer"));
  const Weights w = body_of(Weights(weights, nullptr), false);
  for (int64_t i = 0; i < std::min(n_layers, kMostLayers); ++i) {
    for (const char* name : {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}) {
      if (WeightTensor* tensor = weights.find(w["h"][i][name].full_name("weight"))) SB_OK(transpose(*tensor));
    }
  }
  weights.mark_reworked();
  return {};
}

Result<std::unique_ptr<ModelGraph>> open_gpt2(const Config& config, WeightStore& weights) {
  DecoderConfig c;
  SB_TRY(c.n_layers, config.dimension("n_layer"));
  SB_TRY(c.hidden, config.dimension("n_embd"));
  SB_TRY(c.n_heads, config.dimension("n_head"));
  SB_TRY(c.vocab, config.dimension("vocab_size"));
  SB_TRY(c.context, config.dimension_or("n_positions", 1024));
  SB_TRY(c.norm_eps, config.number_or("layer_norm_epsilon", 1e-5));
  if (c.hidden % c.n_heads != 0) return config.invalid("n_head", "it must divide n_embd");
  if (c.n_layers > kMostLayers) return config.invalid("n_layer", "at most 1024 are supported");
  c.n_kv_heads = c.n_heads;
  c.head_dim = c.hidden / c.n_heads;

  const bool gguf = config.container() == Container::kGguf;
  const Weights root(weights, gguf ? gpt2_gguf_name : nullptr);
  c.tied_head = !root["lm_head"].has("weight");
  const Weights w = body_of(root, gguf);
  if (const WeightTensor* positions = w["wpe"].tensor("weight");
      positions && positions->shape.rank() == 2 && positions->shape[0] < c.context) {
    return err(Code::kShapeMismatch, {{"what", positions->name},
                                      {"shape", positions->shape.text()},
                                      {"expected", "a row for each of " + std::to_string(c.context) + " positions"}});
  }
  return std::make_unique<Gpt2>(c, root, w);
}

}  // namespace

extern const Family kGpt2;
const Family kGpt2 = {
    "gpt2", {"gpt2"}, open_gpt2, [](const Config& config) { return config.gguf_conventions() ? WeightRework() : turn_matrices; }};

}  // namespace sb
