#include "models/decoder.h"

#include <cmath>

namespace sb {

Result<DecoderConfig> read_decoder_config(const Config& config) {
  DecoderConfig c;
  SB_TRY(c.n_layers, config.dimension("num_hidden_layers"));
  SB_TRY(c.hidden, config.dimension("hidden_size"));
  SB_TRY(c.n_heads, config.dimension("num_attention_heads"));
  SB_TRY(c.n_kv_heads, config.dimension_or("num_key_value_heads", c.n_heads));
  SB_TRY(c.head_dim, config.dimension_or("head_dim", c.hidden / c.n_heads));
  SB_TRY(c.vocab, config.dimension("vocab_size"));
  SB_TRY(c.context, config.dimension_or("max_position_embeddings", 2048));
  SB_TRY(c.norm_eps, config.number_or("rms_norm_eps", 1e-6));
  SB_TRY(c.tied_head, config.flag_or("tie_word_embeddings", false));
  if (c.n_layers > 1024) return config.invalid("num_hidden_layers", "at most 1024 are supported");
  if (c.n_heads % c.n_kv_heads != 0) return config.invalid("num_key_value_heads", "it must divide num_attention_heads");
  if (c.head_dim < 1 || c.head_dim > 1024) return config.invalid("head_dim", "it must be 1 to 1024");
  return c;
}

const Json* rope_parameters(const Config& config) {
  const Json* parameters = config.find("rope_parameters");
  return parameters ? parameters : config.find("rope_scaling");
}

Result<double> rope_theta(const Config& config, const Json* parameters, double otherwise) {
  double theta = otherwise;
  if (auto nested = parameters ? json_number(*parameters, "rope_theta") : std::nullopt) {
    theta = *nested;
  } else {
    SB_TRY(theta, config.number_or("rope_theta", otherwise));
  }
  if (!(theta > 0) || !std::isfinite(theta)) return config.invalid("rope_theta", "it must be above 0");
  return theta;
}

Result<std::vector<float>> rope_frequencies(const Config& config, const Json* parameters, double theta, int64_t n_rot,
                                            const WeightStore& weights) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < n_rot / 2; ++i) frequencies.push_back(float(std::pow(theta, -2.0 * double(i) / double(n_rot))));

  if (config.gguf_conventions()) {
    // GGUF stores Llama 3's interpolation as ready divisors, linear scaling as metadata.
    SB_TRY(std::string type, config.text_or("rope.scaling.type", "none"));
    SB_TRY(double factor, config.number_or("rope.scaling.factor", 1.0));
    if (type == "linear" && factor > 0) {
      for (float& f : frequencies) f = float(double(f) / factor);
    } else if (type != "none" && type != "linear") {
      return config.invalid("rope.scaling.type", "known are none and linear");
    }
    if (const WeightTensor* divisors = weights.find("rope_freqs.weight")) {
      if (divisors->dtype != Dtype::kF32 || divisors->shape.elements() < int64_t(frequencies.size())) {
        return err(Code::kShapeMismatch, {{"what", "rope_freqs.weight"},
                                          {"shape", divisors->shape.text()},
                                          {"expected", std::to_string(frequencies.size()) + " float32 values"}});
      }
      for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= divisors->view().row<float>(0)[i];
    }
    return frequencies;
  }

  if (!parameters) return frequencies;
  std::string type = json_string(*parameters, "rope_type").value_or(json_string(*parameters, "type").value_or("default"));
  if (type == "default") return frequencies;
  const double factor = json_number(*parameters, "factor").value_or(1.0);
  if (!(factor > 0)) return config.invalid("rope_parameters", "factor must be above 0");
  if (type == "linear") {
    for (float& f : frequencies) f = float(double(f) / factor);
    return frequencies;
  }
  if (type != "llama3") return config.invalid("rope_parameters", "rope_type must be default, linear or llama3");
  // Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, those between interpolated.
  const double low = json_number(*parameters, "low_freq_factor").value_or(1.0),
               high = json_number(*parameters, "high_freq_factor").value_or(4.0);
  const double original = json_number(*parameters, "original_max_position_embeddings").value_or(8192.0);
  if (!(low > 0) || !(high > low) || !(original > 0))
    return config.invalid("rope_parameters", "it needs 0 < low_freq_factor < high_freq_factor and original_max_position_embeddings > 0");
  for (float& f : frequencies) {
    const double wavelength = 2 * 3.14159265358979323846 / double(f);
    if (wavelength > original / low) {
      f = float(double(f) / factor);
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      f = float((1 - smooth) * double(f) / factor + smooth * double(f));
    }
  }
  return frequencies;
}

std::string gguf_name(std::string_view name, std::string_view prefix, std::initializer_list<NameRow> layer,
                      std::initializer_list<NameRow> outside) {
  auto rename = [](std::string_view rest, std::initializer_list<NameRow> rows) -> std::string {
    for (const NameRow& row : rows) {
      if (rest.starts_with(row.hugging_face) && (rest.size() == row.hugging_face.size() || rest[row.hugging_face.size()] == '.')) {
        return std::string(row.gguf) + std::string(rest.substr(row.hugging_face.size()));
      }
    }
    return "";
  };
  if (!name.starts_with(prefix)) return rename(name, outside);
  name.remove_prefix(prefix.size());
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return "";
  const std::string inner = rename(name.substr(dot + 1), layer);
  return inner.empty() ? "" : "blk." + std::string(name.substr(0, dot)) + "." + inner;
}

void decoder_trip(Plan& plan, const Pass& pass, const DecoderShape& shape, const std::function<Ref()>& embed,
                  const std::function<Ref(Ref x, int64_t layer)>& layer, const std::function<Ref(Ref x)>& norm, const Weights& head,
                  float logit_softcap) {
  Ref x = pass.first_layer > 0 ? plan.input("x", shape.hidden) : embed();
  const int64_t end = pass.end_layer < 0 ? shape.n_layers : pass.end_layer;
  for (int64_t i = pass.first_layer; i < end; ++i) {
    x = layer(x, i);
    if (i == 0 && pass.hidden_states) plan.output("hidden_1", x);
  }
  if (pass.end_layer >= 0) return plan.output("y", x);
  if (pass.hidden_states) plan.output("hidden_last", norm(x));
  if (pass.logits == Pass::Logits::kNone) return;
  if (pass.logits == Pass::Logits::kLast && pass.n_tokens > 1) x = last_row(plan, x);
  Ref logits = matmul(plan, norm(x), weight(plan, head));  // [1 or T, V]
  if (logit_softcap > 0) logits = softcap(plan, logits, logit_softcap);
  plan.output("logits", logits);
}

}  // namespace sb
