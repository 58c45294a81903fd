// A loaded model: weights, graph, tokenizer and template, with its compiled programs.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "device/device.h"
#include "input/chat_template.h"
#include "input/tokenizer.h"
#include "io/loading.h"
#include "models/registry.h"

namespace sb {

/// The ids that end an answer: what the configuration and the generation settings name, and, since a GGUF names one only, the control
/// tokens of its vocabulary that end a turn by their names. `n_vocab` bounds them.
std::vector<int32_t> end_ids(const ModelFiles& files, const Tokenizer* tokenizer, int64_t n_vocab);

/// Tokens a session can hold when `wanted` were asked for: 0 takes the model's own limit, at most 4096.
int64_t session_context(const DecoderShape& shape, int64_t wanted);

/// What a model's weights take: true bits per weight, scales counted. A head that is the embedding counts once, as embedding.
struct WeightReport {
  uint64_t n_bytes = 0;
  int64_t n_parameters = 0;
  double bpw = 0, bpw_linears = 0, bpw_embedding = 0;
};

/// Brings a load's matrices to the device, which begins what the model's passes will take while they come. Before the load's first next();
/// the device outlives it.
void bring_model_to(Loading& loading, Device& device);

class Model {
 public:
  /// Takes what a load brought home. `context` bounds its sessions (tokens; 0: the model's own limit, at most 4096).
  /// `tokenizer`: what was made of its tokenizer.json already. Errors: those of the family, the tokenizer and the template; kOpUnsupported.
  static Result<std::unique_ptr<Model>> open(ModelFiles files, std::shared_ptr<Device> device, int64_t context,
                                             std::optional<Result<Tokenizer>> tokenizer = {});

  Device& device() { return *device_; }

  // ---- A device that is lost ----

  /// What has to be done for a model to go on, and by whom.
  enum class Mend { kNothing, kWait, kWeights };
  /// Which of its lives the model is in, from 1; 0 while it is broken: its device was lost, and mend() says what to do. What a session
  /// cached in an earlier life is gone.
  uint64_t life() const { return device_->life() == device_life_ ? life_ : 0; }
  /// Opens a lost device anew, or goes to the device of falls_back_to() when that cannot be. kWait: it is being opened, ask again;
  /// kWeights: reload(), and restore() with what that brings. Errors: kDeviceLost, kDeviceMissing, those of making the other device.
  Result<Mend> mend();
  /// A load of this model's weights from where they came, with the planes in use.
  Loading reload() const;
  /// Begins the next life with what that load brought. Errors: those of open(), kModelChanged when it is another one. A device that is
  /// lost meanwhile is none: life() stays 0.
  Status restore(ModelFiles files);
  /// Where the model goes when its device does not come back.
  using MakeDevice = std::function<Result<std::shared_ptr<Device>>()>;
  void falls_back_to(MakeDevice make) { make_other_ = std::move(make); }
  /// Why it runs on another device than it was opened for; empty when it does not.
  const std::string& why_here() const { return why_here_; }

  const std::shared_ptr<Device>& shared_device() const { return device_; }
  const ModelGraph& graph() const { return *graph_; }
  const DecoderShape& shape() const { return shape_; }
  int64_t context() const { return context_; }
  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }
  Tokenizer* tokenizer() { return tokenizer_ ? &*tokenizer_ : nullptr; }
  bool has_chat_template() const { return chat_template_.has_value(); }
  const std::string& file() const { return files_->file; }
  const WeightStore& weights() const { return files_->weights; }

  /// An empty cache for its keys and values, in float16 or float32, where its device keeps one.
  KvPages new_cache(bool half) const {
    const auto n_layers = int32_t(shape_.n_layers), width = int32_t(shape_.n_kv_heads * shape_.head_dim);
    return {n_layers, width, shape_.head_dim, half, 0, device_->kv_storage(n_layers, width, half)};
  }

  /// Messages to prompt text. `request`: {messages, tools?, add_generation_prompt = true}.
  /// Errors: kTemplateMissing, kTemplateRaised, kTemplateInvalid, kArgumentInvalid (no messages).
  Result<std::string> chat_prompt(const OrderedJson& request) const;
  /// Whether an answer ends with this id.
  bool is_end(int32_t id) const;

  /// The program of a pass, compiled when first asked for.
  Result<Program*> program(const Pass& pass);
  /// Runs a pass over `ids`, which join the cache at `position`.
  Result<Program*> run(const Pass& pass, std::span<const int32_t> ids, int64_t position, KvPages& kv) {
    return run(pass, {ids, int32_t(position), &kv});
  }
  /// The same; without ids over the one that the device chose last (Device::chosen).
  Result<Program*> run(const Pass& pass, const Scalars& scalars);

  /// A load of the refinement planes that this model's folder has. Errors: kRefinementMissing.
  Result<Loading> refinement() const;
  /// Gives the model what that load brought, between two steps; caches stay. Errors: those of attach_refinement.
  Status refine(ModelFiles files);
  /// Takes refinements away in the folder's order until at least `n_bytes` are free; returns how many that were, 0 when there is none.
  uint64_t drop_refinement(uint64_t n_bytes);
  bool has_refinement() const;
  /// Which planes are in use: "base", "partial" or "full"; full also of a model without refinement.
  const char* planes() const;

  /// Device::profile of the pass that makes a token, after an answer. Sessions begin anew afterwards.
  Result<std::string> profile_json();
  WeightReport weight_report() const;
  std::string info_json() const;
  std::string tensors_json() const;

 private:
  Model() = default;
  void read_specials();
  void retire_programs();
  /// Compiles a first program.
  Status start_life(std::unique_ptr<Plan> first);
  Status fall_back(const Error& why);
  Result<std::unique_ptr<Plan>> plan(const Pass& pass) const;

  std::unique_ptr<ModelFiles> files_;  // does not move: the graph refers to its weights
  std::shared_ptr<Device> device_;
  MakeDevice make_other_;
  std::string why_here_;
  uint64_t life_ = 0, device_life_ = 0;  // the device's, in which programs were compiled
  const Family* family_ = nullptr;
  std::unique_ptr<ModelGraph> graph_;
  DecoderShape shape_;
  int64_t context_ = 0;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  std::vector<int32_t> ends_;
  std::string bos_text_, eos_text_;  // for the template
  std::map<std::tuple<int64_t, Pass::Logits, bool>, std::unique_ptr<Program>> programs_;
  std::vector<std::unique_ptr<Program>> retired_;  // over weights that are no longer; one of them may be running
};

}  // namespace sb
