#include "runtime/folder_texts.h"

#include "input/tokenizer_export.h"
#include "runtime/model.h"
#include "runtime/tokenizer_file.h"

namespace sb {
namespace {

using Texts = std::vector<std::pair<std::string, std::string>>;

constexpr int kIndent = 2;  // Hugging Face's own

/// GGUF's general.architecture where Hugging Face's model_type is another.
std::string model_type_of(const std::string& architecture) { return architecture == "gemma3" ? "gemma3_text" : architecture; }

Json config_of(const ModelFiles& files, Json quantization_config) {
  Json config = files.config.hugging_face_values();
  if (files.container == Container::kGguf) {
    config["model_type"] = model_type_of(files.config.architecture());
    if (auto name = json_string(files.config.values(), "general.name")) config["_name_or_path"] = *name;
    // Families look for the tensor; other readers of the folder ask here.
    config["tie_word_embeddings"] = files.weights.find("output.weight") == nullptr;
  }
  if (files.config.gguf_conventions()) {
    if (!quantization_config.is_object()) quantization_config = Json::object();
    quantization_config["gguf_conventions"] = true;
  }
  config.erase("quantization_config");
  if (!quantization_config.is_null()) config["quantization_config"] = std::move(quantization_config);
  return config;
}

Result<Json> tokenizer_config_of(const ModelFiles& files, const GgufVocab& vocab, const Tokenizer& tokenizer) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  auto name = [&](const char* key, std::optional<int32_t> id) {
    if (id && *id >= 0) config[key] = tokenizer.token(*id);
  };
  name("bos_token", vocab.bos);
  name("eos_token", vocab.eos);
  name("unk_token", vocab.unk);
  name("pad_token", vocab.pad);
  // What is added, whether the file says so or its pre-tokenizer implies it.
  SB_TRY(const std::vector<int32_t> added, tokenizer.encode("", true));
  const bool adds_bos = !added.empty() && tokenizer.bos() == added.front();
  config["add_bos_token"] = adds_bos;
  config["add_eos_token"] = added.size() > size_t(adds_bos) && tokenizer.eos() == added.back();
  if (auto context = files.config.dimension_or("max_position_embeddings", 0); context && *context > 0)
    config["model_max_length"] = *context;
  return config;
}

Json generation_config_of(const ModelFiles& files, const GgufVocab& vocab, const Tokenizer& tokenizer) {
  Json config = Json::object();
  config["eos_token_id"] = end_ids(files, &tokenizer, int64_t(tokenizer.vocab_size()));
  if (vocab.bos && *vocab.bos >= 0) config["bos_token_id"] = *vocab.bos;
  if (vocab.pad && *vocab.pad >= 0) config["pad_token_id"] = *vocab.pad;
  return config;
}

}  // namespace

Result<Texts> folder_texts(const ModelFiles& files, const Json& quantization_config) {
  Texts texts;
  auto add = [&](const char* name, std::string text) { texts.emplace_back(name, std::move(text)); };
  add("config.json", json_text(config_of(files, quantization_config), kIndent) + "\n");
  if (files.container == Container::kGguf) {
    // gguf.cc makes a vocabulary wherever a tokenizer is named, so without one it has been taken.
    SB_ASSERT(files.vocab || json_string(files.config.values(), "tokenizer.ggml.model").value_or("").empty());
    if (files.vocab) {
      const GgufVocab vocab = vocab_of(*files.vocab);
      auto tokenizer = Tokenizer::from_gguf(vocab);
      if (!tokenizer) return err(tokenizer.error().with({"file", files.file}));
      auto json = tokenizer_json_of(vocab);
      if (!json) return err(json.error().with({"file", files.file}));
      SB_TRY(const Json tokenizer_config, tokenizer_config_of(files, vocab, *tokenizer));
      add("tokenizer.json", std::move(*json));
      add("tokenizer_config.json", json_text(tokenizer_config, kIndent) + "\n");
      add("generation_config.json", json_text(generation_config_of(files, vocab, *tokenizer), kIndent) + "\n");
    }
  } else {
    if (!files.tokenizer_json.empty()) add("tokenizer.json", files.tokenizer_json);
    if (files.tokenizer_config.is_object()) add("tokenizer_config.json", json_text(files.tokenizer_config, kIndent) + "\n");
    if (files.generation_config.is_object()) add("generation_config.json", json_text(files.generation_config, kIndent) + "\n");
  }
  // Also where the source keeps it in tokenizer_config.json: readers look here first.
  if (!files.chat_template.empty()) add("chat_template.jinja", files.chat_template);
  return texts;
}

}  // namespace sb
