#include "io/config.h"

#include <cmath>

namespace sb {
namespace {

struct KeyRow {
  const char* hugging_face;
  const char* gguf;                // "x" stands for "<architecture>.x" unless it begins with "tokenizer."
  const char* spelt_by = nullptr;  // the one architecture whose config.json spells it so; nullptr: all others
};

// Two Hugging Face keys with one GGUF key are two spellings of one setting (GPT-2's n_layer is num_hidden_layers): either finds the other.
constexpr KeyRow kKeys[] = {
    {"num_hidden_layers", "block_count"},
    {"n_layer", "block_count", "gpt2"},
    {"hidden_size", "embedding_length"},
    {"n_embd", "embedding_length", "gpt2"},
    {"intermediate_size", "feed_forward_length"},
    {"n_inner", "feed_forward_length", "gpt2"},
    {"num_attention_heads", "attention.head_count"},
    {"n_head", "attention.head_count", "gpt2"},
    {"num_key_value_heads", "attention.head_count_kv"},
    {"head_dim", "attention.key_length"},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    {"layer_norm_eps", "attention.layer_norm_epsilon"},
    {"layer_norm_epsilon", "attention.layer_norm_epsilon", "gpt2"},
    {"max_position_embeddings", "context_length"},
    {"n_positions", "context_length", "gpt2"},
    {"n_ctx", "context_length", "gpt2"},
    {"rope_theta", "rope.freq_base"},
    {"rope_dims", "rope.dimension_count"},
    {"sliding_window", "attention.sliding_window"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"attention_multiplier", "attention.scale"},
    {"vocab_size", "vocab_size"},
    {"bos_token_id", "tokenizer.ggml.bos_token_id"},
    {"eos_token_id", "tokenizer.ggml.eos_token_id"},
    {"pad_token_id", "tokenizer.ggml.padding_token_id"},
    {"unk_token_id", "tokenizer.ggml.unknown_token_id"},
};

const KeyRow* key_row(std::string_view key) {
  for (const KeyRow& row : kKeys) {
    if (key == row.hugging_face) return &row;
  }
  return nullptr;
}

std::string gguf_key(const std::string& architecture, std::string_view key) {
  const KeyRow* row = key_row(key);
  std::string_view suffix = row ? row->gguf : key;
  return suffix.starts_with("tokenizer.") ? std::string(suffix) : architecture + "." + std::string(suffix);
}

/// The row that says how config.json of `architecture` spells what GGUF calls `key`; nullptr when none does.
const KeyRow* spelling(const std::string& architecture, std::string_view key) {
  const KeyRow* common = nullptr;
  for (const KeyRow& row : kKeys) {
    if (gguf_key(architecture, row.hugging_face) != key) continue;
    if (row.spelt_by && architecture == row.spelt_by) return &row;
    if (!row.spelt_by && !common) common = &row;
  }
  return common;
}

const Json* find_set(const Json& values, std::string_view key) {
  const Json* value = json_find(values, key);
  return value && !value->is_null() ? value : nullptr;
}

std::optional<int64_t> integer_of(const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(INT64_MAX)) return std::nullopt;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double d = value.get<double>();
  if (!(std::abs(d) <= 9.0e15) || d != double(int64_t(d))) return std::nullopt;
  return int64_t(d);
}

}  // namespace

Config::Config(Container container, std::string file, Json values)
    : container_(container), file_(std::move(file)), values_(std::move(values)) {
  architecture_ = json_string(values_, container_ == Container::kGguf ? "general.architecture" : "model_type").value_or("");
}

const Json* Config::find(std::string_view key) const {
  if (const Json* value = find_set(values_, key)) return value;
  if (container_ == Container::kGguf) return find_set(values_, gguf_key(architecture_, key));
  const KeyRow* row = key_row(key);
  if (!row) return nullptr;
  for (const KeyRow& other : kKeys) {
    if (std::string_view(other.gguf) != row->gguf) continue;
    if (const Json* value = find_set(values_, other.hugging_face)) return value;
  }
  return nullptr;
}

bool Config::gguf_conventions() const {
  if (container_ == Container::kGguf) return true;
  const Json* quantization = json_find(values_, "quantization_config");
  return quantization && json_bool(*quantization, "gguf_conventions").value_or(false);
}

Json Config::hugging_face_values() const {
  if (container_ != Container::kGguf) return values_;
  Json out = Json::object();
  const std::string prefix = architecture_ + ".";
  for (const auto& [key, value] : values_.items()) {
    if (const KeyRow* row = spelling(architecture_, key)) {
      out[row->hugging_face] = value;
    } else if (key.starts_with(prefix)) {
      out.emplace(key.substr(prefix.size()), value);  // not over what the table says
    }
  }
  return out;
}

std::unexpected<Error> Config::invalid(std::string_view key, std::string_view why) const {
  constexpr size_t kLongest = 80;
  const Json* value = find(key);
  std::string shown = value ? json_text(*value) : "absent";
  if (shown.size() > kLongest) shown = shown.substr(0, kLongest) + "…";
  const bool is_mapped = container_ == Container::kGguf && !json_find(values_, key);
  return err(Code::kConfigInvalid,
             {{"file", file_}, {"key", is_mapped ? gguf_key(architecture_, key) : std::string(key)}, {"value", shown}, {"why", why}});
}

Result<int64_t> Config::dimension(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return invalid(key, "it is needed");
  std::optional<int64_t> n = integer_of(*value);
  if (!n || *n < 1 || *n > INT32_MAX) return invalid(key, "a whole number from 1 to 2147483647 is needed");
  return *n;
}

Result<int64_t> Config::dimension_or(std::string_view key, int64_t otherwise) const {
  if (!has(key)) return otherwise;
  return dimension(key);
}

Result<double> Config::number_or(std::string_view key, double otherwise) const {
  const Json* value = find(key);
  if (!value) return otherwise;
  if (!value->is_number() || !std::isfinite(value->get<double>())) return invalid(key, "a finite number is needed");
  return value->get<double>();
}

Result<bool> Config::flag_or(std::string_view key, bool otherwise) const {
  const Json* value = find(key);
  if (!value) return otherwise;
  if (!value->is_boolean()) return invalid(key, "true or false is needed");
  return value->get<bool>();
}

Result<std::string> Config::text_or(std::string_view key, std::string otherwise) const {
  const Json* value = find(key);
  if (!value) return otherwise;
  if (!value->is_string()) return invalid(key, "a text is needed");
  return value->get<std::string>();
}

std::vector<int64_t> Config::integers(std::string_view key) const {
  const Json* value = find(key);
  std::vector<int64_t> out;
  if (!value) return out;
  if (value->is_array()) {
    for (const Json& element : *value) {
      if (auto n = integer_of(element)) out.push_back(*n);
    }
  } else if (auto n = integer_of(*value)) {
    out.push_back(*n);
  }
  return out;
}

}  // namespace sb
