// What decoder families have in common: the sizes every configuration states, the frequencies of rotary positions, the names of tensors
// in GGUF, and the trip from embedding to logits around the family's own layer.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "models/graph.h"
#include "nn/blocks.h"

namespace sb {

struct DecoderConfig : DecoderShape {
  double norm_eps = 1e-6;
  bool tied_head = false;
  int32_t window = 0;  // tokens a sliding-window layer sees; 0: all
};

/// Reads the shared keys. Errors: kConfigInvalid for what is missing, absurd or contradictory.
Result<DecoderConfig> read_decoder_config(const Config& config);

/// Angles a position turns each pair by, n_rot / 2 of them: theta^(−2i/n_rot), scaled as `parameters` (rope_parameters or rope_scaling of
/// config.json; may be null) or the GGUF keys say: default, linear, llama3 (Llama 3.1's smooth interpolation).
/// Errors: kConfigInvalid for another rope_type.
Result<std::vector<float>> rope_frequencies(const Config& config, const Json* parameters, double theta, int64_t n_rot,
                                            const WeightStore& weights);
/// rope_parameters, or its older name rope_scaling, or null.
const Json* rope_parameters(const Config& config);
/// rope_theta, wherever the configuration keeps it.
Result<double> rope_theta(const Config& config, const Json* parameters, double otherwise);

/// A rename of one dotted piece: Hugging Face's "self_attn.q_proj" is GGUF's "attn_q".
struct NameRow {
  std::string_view hugging_face, gguf;
};
/// "model.layers.3.self_attn.q_proj.weight" → "blk.3.attn_q.weight": `prefix` is what stands before the layer's number, `layer` renames
/// within a layer, `outside` the rest. "" for a name without a row.
std::string gguf_name(std::string_view name, std::string_view prefix, std::initializer_list<NameRow> layer,
                      std::initializer_list<NameRow> outside);

/// Runs `layer` for every layer between what `embed` gives and the logits, and names the outputs that the pass wants.
/// x [T, D]; `norm` is the final norm; `head` holds the output matrix [V, D].
void decoder_trip(Plan& plan, const Pass& pass, const DecoderShape& shape, const std::function<Ref()>& embed,
                  const std::function<Ref(Ref x, int64_t layer)>& layer, const std::function<Ref(Ref x)>& norm, const Weights& head,
                  float logit_softcap = 0);

}  // namespace sb
