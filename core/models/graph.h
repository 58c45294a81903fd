// What a family gives the runtime: its sizes, and a plan for each pass.
#pragma once

#include <memory>
#include <span>

#include "device/plan.h"
#include "io/config.h"
#include "io/loading.h"
#include "io/weights.h"

namespace sb {

/// One run of a decoder over T new tokens.
struct Pass {
  int64_t n_tokens = 1;
  enum class Logits { kNone, kLast, kAll } logits = Logits::kLast;  // output "logits": [1, V] or [T, V]
  bool hidden_states = false;  // outputs "hidden_1" (after the first layer) and "hidden_last" (after the final norm): [T, D]
  // A stretch of the model: layers first_layer … end_layer − 1 (−1: to the logits). From a later layer on, x [T, D] is the input "x";
  // before the last, it is the output "y". For calibration, which goes layer by layer.
  int64_t first_layer = 0, end_layer = -1;
};

struct DecoderShape {
  int64_t n_layers = 0, hidden = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, vocab = 0, context = 0;
  bool operator==(const DecoderShape&) const = default;
};

/// A model's architecture with its configuration, over weights that outlive it.
class ModelGraph {
 public:
  virtual ~ModelGraph() = default;
  virtual DecoderShape shape() const = 0;
  /// Writes the pass into the plan; errors stick to it.
  virtual void build(Plan& plan, const Pass& pass) const = 0;
};

/// One row of the registry.
struct Family {
  const char* name;                          // as this project says it
  std::initializer_list<const char*> types;  // config.json's model_type and GGUF's general.architecture
  /// Errors: kConfigInvalid, kTensorMissing, kShapeMismatch, kMemoryExhausted.
  Result<std::unique_ptr<ModelGraph>> (*open)(const Config& config, WeightStore& weights);
  /// Of a model whose weights are to be changed before they are opened. Errors as open().
  FindRework rework = nullptr;
};

}  // namespace sb
