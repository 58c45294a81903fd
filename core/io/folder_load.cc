// Loads a Hugging Face folder: the small JSON files whole, then model.safetensors, or the shards that model.safetensors.index.json names,
// or those of a quantised folder (quantised_load.cc).
#include <algorithm>
#include <map>
#include <set>

#include "io/foreign.h"
#include "io/load_task.h"
#include "io/safetensors.h"

namespace sb {

constexpr uint64_t kLongestText = 256u << 20;  // bytes of one JSON file; the largest tokenizer.json known has 35 MB

std::string label_of(const Loading::State& state, const std::string& file) {
  if (state.file.empty() || state.file.ends_with('/')) return state.file + file;
  return state.file + "/" + file;
}

LoadTask<Result<std::optional<std::string>>> read_text(Loading::State& state, std::string file, bool size_only) {
  using Out = Result<std::optional<std::string>>;
  const std::string label = label_of(state, file);
  const std::optional<uint64_t> size = co_await ask_size(state, file);
  if (!size) co_return Out(std::nullopt);
  if (*size > kLongestText)
    co_return err(Code::kModelCorrupt, {{"file", label}, {"place", "byte 0"}, {"why", "it is longer than 256 MiB"}});
  state.progress.total_bytes += *size;
  if (size_only) co_return Out(std::nullopt);
  std::string text(size_t(*size), '\0');
  SB_CO_OK(co_await read_bytes(state, file, label, 0, std::as_writable_bytes(std::span(text))).in(state));
  co_return Out(std::move(text));
}

namespace {

/// A whole JSON object, or null when the file is absent or only its size is wanted.
LoadTask<Result<Json>> read_json(Loading::State& state, std::string file, bool size_only = false) {
  SB_CO_TRY(const std::optional<std::string> text, co_await read_text(state, file, size_only).in(state));
  if (!text) co_return Json(nullptr);
  const std::string label = label_of(state, file);
  SB_CO_TRY(Json json, json_parse(*text, label));
  if (!json.is_object()) co_return err(Code::kModelCorrupt, {{"file", label}, {"place", "byte 0"}, {"why", "it is no JSON object"}});
  co_return std::move(json);
}

/// tokenizer_config.json has one template, or several with names, of which "default" is meant.
std::string template_of(const Json& tokenizer_config) {
  const Json* field = json_find(tokenizer_config, "chat_template");
  if (!field) return "";
  if (field->is_string()) return field->get<std::string>();
  if (!field->is_array()) return "";
  for (const Json& entry : *field) {
    if (json_string(entry, "name") == "default") return json_string(entry, "template").value_or("");
  }
  return "";
}

/// File name → the tensors that the index promises there.
using Shards = std::map<std::string, std::vector<std::string>>;

Result<Shards> shards_of(const Json& index, std::string_view label) {
  auto corrupt = [&](std::string_view place, std::string_view why) {
    return err(Code::kModelCorrupt, {{"file", label}, {"place", place}, {"why", why}});
  };
  const Json* weight_map = json_find(index, "weight_map");
  if (!weight_map || !weight_map->is_object() || weight_map->empty())
    return corrupt("weight_map", "it is no list of tensors and their files");
  Shards shards;
  for (auto entry = weight_map->begin(); entry != weight_map->end(); ++entry) {
    if (!entry->is_string()) return corrupt("weight_map." + entry.key(), "it is no file name");
    const std::string name = entry->get<std::string>();
    if (!is_plain_name(name)) return corrupt("weight_map." + entry.key(), "\"" + name + "\" is not the name of a file in this folder");
    shards[name].push_back(entry.key());
  }
  return shards;
}

LoadTask<Status> read_safetensors(Loading::State& state, std::string file, uint64_t size, WeightStore& weights) {
  TensorFile from{.file = file, .label = label_of(state, file), .places = {}, .start = {}, .start_bytes = 0};
  SB_CO_OK(co_await extend_start(state, from, std::min(size, std::max<uint64_t>(state.tuning.first_bytes, 8))).in(state));
  SB_CO_TRY(const uint64_t n_head, safetensors_head_bytes(from.start.bytes(), size, from.label));
  SB_CO_OK(co_await extend_start(state, from, n_head).in(state));
  SB_CO_TRY(from.places, safetensors_parse_head(from.start.bytes().first(size_t(n_head)), size, from.label));
  state.heads.add(from.label, from.places);
  const std::string label = from.label;
  auto take = [&](const TensorPlace& place, TensorBytes bytes) { return add_tensor(place, label, std::move(bytes), weights); };
  co_return co_await read_tensors(state, std::move(from), take).in(state);
}

struct SizedFile {
  std::string name;
  uint64_t size;
};

LoadTask<Status> read_weights(Loading::State& state, WeightStore& weights) {
  static constexpr const char* kWhole = "model.safetensors";
  static constexpr const char* kIndex = "model.safetensors.index.json";
  std::vector<SizedFile> files;
  Shards shards;
  if (const std::optional<uint64_t> size = co_await ask_size(state, kWhole)) {
    files.push_back({kWhole, *size});
  } else {
    SB_CO_TRY(const Json index, co_await read_json(state, kIndex).in(state));
    if (index.is_null()) co_return err(Code::kFileMissing, {{"file", label_of(state, kWhole)}});
    SB_CO_TRY(shards, shards_of(index, label_of(state, kIndex)));
    for (const auto& [name, tensors] : shards) {
      const std::optional<uint64_t> shard_size = co_await ask_size(state, name);
      if (!shard_size) co_return err(Code::kFileMissing, {{"file", label_of(state, name)}});
      files.push_back({name, *shard_size});
    }
  }
  for (const SizedFile& file : files) state.progress.total_bytes += file.size;
  state.heads.n_files = files.size();
  for (const SizedFile& file : files) SB_CO_OK(co_await read_safetensors(state, file.name, file.size, weights).in(state));
  for (const auto& [name, tensors] : shards) {
    for (const std::string& tensor : tensors) {
      if (!weights.find(tensor)) co_return err(Code::kTensorMissing, {{"file", label_of(state, name)}, {"tensor", tensor}});
    }
  }
  co_return Status();
}

/// Another quantiser's tensors to ours; what they take is entered in the cost.
Status convert(Loading::State& state, const ForeignScheme& scheme, WeightStore& weights) {
  SB_OK(convert_foreign(scheme, weights, state.shapes_only));
  uint64_t n_bytes = 0;
  for (const auto& tensor : weights.tensors()) {
    SB_TRY(const uint64_t n, dense_bytes(tensor->dtype, tensor->shape));
    n_bytes += n;
  }
  state.weight_bytes = std::max(state.weight_bytes, n_bytes);
  state.stages(0);
  return {};
}

bool is_quantised(const Json& config) {
  const Json* quantization = json_find(config, "quantization_config");
  return quantization && json_string(*quantization, "quant_method") == "subbyte";
}

}  // namespace

LoadTask<Result<ModelFiles>> load_folder(Loading::State& state) {
  SB_CO_TRY(Json config, co_await read_json(state, "config.json").in(state));
  if (config.is_null()) co_return err(Code::kFileMissing, {{"file", label_of(state, "config.json")}});
  std::optional<FolderIndex> index;
  SB_CO_TRY(const std::optional<ForeignScheme> scheme, foreign_scheme(config, label_of(state, "config.json")));
  if (is_quantised(config)) { SB_CO_TRY(index, co_await read_folder_index(state, state.sets).in(state)); }

  state.progress.phase = "tokenizer";
  const bool unread = state.shapes_only;
  SB_CO_TRY(std::optional<std::string> tokenizer, co_await read_text(state, "tokenizer.json", unread).in(state));
  if (tokenizer) {
    state.tokenizer_json = *std::move(tokenizer);
    if (state.see_tokenizer) state.see_tokenizer(state.tokenizer_json);
  }
  SB_CO_TRY(Json tokenizer_config, co_await read_json(state, "tokenizer_config.json", unread).in(state));
  SB_CO_TRY(Json generation_config, co_await read_json(state, "generation_config.json", unread).in(state));
  SB_CO_TRY(std::optional<std::string> chat_template, co_await read_text(state, "chat_template.jinja", unread).in(state));
  if (!chat_template) chat_template = template_of(tokenizer_config);

  state.progress.phase = "weights";
  WeightStore weights(state.file, Container::kFolder);
  const Config settings(Container::kFolder, label_of(state, "config.json"), std::move(config));
  const WeightRework rework = state.find_rework ? state.find_rework(settings) : nullptr;
  if (state.see_shapes && !scheme && !rework) {
    state.heads.see = [&] { show_shapes(state, settings, index); };
  }
  if (index) {
    SB_CO_OK(co_await read_quantised(state, *index, state.sets, weights).in(state));
  } else {
    // What is still to be changed is changed here, on the host.
    Device* const device = state.device;
    if (scheme || rework) state.device = nullptr;
    SB_CO_OK(co_await read_weights(state, weights).in(state));
    if (scheme) SB_CO_OK(convert(state, *scheme, weights));
    state.device = device;
  }
  if (rework && state.device && !state.shapes_only) SB_CO_OK(rework(settings, weights));
  if ((scheme || rework) && state.device && !state.shapes_only) SB_CO_OK(co_await send_matrices(state, weights).in(state));
  SB_CO_OK(co_await end_sending(state).in(state));
  ModelFiles files = files_without_texts(state, settings, std::move(weights), std::move(index));
  files.tokenizer_json = std::move(state.tokenizer_json);
  files.chat_template = *std::move(chat_template);
  files.tokenizer_config = std::move(tokenizer_config);
  files.generation_config = std::move(generation_config);
  co_return std::move(files);
}

}  // namespace sb
