// Runs stretches of a model over windows of tokens: what calibration and evaluation do. No session, no sampler; each window is a sequence
// of its own, the cache holds float32.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "models/graph.h"
#include "quantize/booked.h"

namespace sb {

/// `v` as a tensor [v.size()].
inline TensorView vector_view(const std::vector<float>& v) {
  return {reinterpret_cast<const std::byte*>(v.data()), Dtype::kF32, {int64_t(v.size())}, int64_t(v.size()) * 4, nullptr, 0};
}

/// Tensors by Hugging Face name that stand in for the model's own.
using Substitutes = std::map<std::string, TensorView, std::less<>>;

/// Matmuls that read one value: their matrices are encoded as one.
struct LinearGroup {
  int32_t input = -1;                 // value of the plan
  std::vector<int32_t> weights;       // values
  std::vector<std::string> names;     // of the weights
  int64_t n_rows = 0, n_columns = 0;  // N of all, K
  int32_t residual = -1;              // the value that the product is added to, where it is added to one as it is
};
/// In the order of the plan's nodes.
std::vector<LinearGroup> linear_groups(const Plan& plan);

/// Part of a stretch. A stretch of one layer is run in stages: stage g ends where the input of group g is made ("group.g", and
/// "residual.g": what the group's product is added to), so that the group can be encoded before the next stage runs it; a last stage ends
/// at "y" or "logits". Between stages a window is what the nodes behind the cut still need; it is cut where that is least.
struct Watch {
  int64_t stage = -1;  // −1: the whole stretch
  // Every activation that has bytes of its own stays readable as "value.N", N its number in the plan, which is copied to here.
  std::unique_ptr<Plan>* record = nullptr;
};

/// A compiled stretch of a model.
class Stretch {
 public:
  static Result<Stretch> compile(const ModelGraph& graph, Device& device, const Pass& pass, const Substitutes& substitutes = {},
                                 Watch watch = {});
  /// x [T, D] for a stretch that begins after the embedding, ids otherwise.
  Status run(std::span<const float> x, std::span<const int32_t> ids);
  /// A named output: "y", "logits", "group.0".
  std::span<const float> output(std::string_view name) const { return program_->output(name); }
  /// Of a stage: floats a token of each value that it is given and that it keeps for the next. A first stage is given x, or nothing where
  /// the stretch begins with the ids.
  const std::vector<int64_t>& given() const { return given_; }
  const std::vector<int64_t>& kept() const { return kept_; }
  /// Runs a stage; `give` fills value i [T, given()[i]], `keep` sees value i of those kept.
  using Give = std::function<void(size_t i, std::span<float> to)>;
  using Keep = std::function<void(size_t i, std::span<const float> value)>;
  Status run_stage(std::span<const int32_t> ids, const Give& give, const Keep& keep);

 private:
  Device* device_ = nullptr;
  std::unique_ptr<Program> program_;
  std::unique_ptr<KvPages> kv_;
  std::vector<int32_t> no_ids_;
  std::vector<int64_t> given_, kept_;
  Booked<float> room_;  // of one given value
  int64_t n_tokens_ = 0;
  bool takes_x_ = false;
};

/// Cuts ids into windows of `n_tokens`, each beginning with the ids in `prefix` (a BOS); what is left over at the end is dropped.
std::vector<std::vector<int32_t>> windows_of(std::span<const int32_t> ids, int64_t n_tokens, std::span<const int32_t> prefix);

}  // namespace sb
