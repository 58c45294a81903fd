// What a model takes, worked out from shapes before any weight is here: bytes by tag at a full context, and what comes over the line.
// Activations and scratch are those of the plans that a session would run, asked of the device. Architectures that no family here knows
// have one layer of each kind written with our own ops instead (`by_rule`): norm, q, k, v, attention, o, the same over an encoder's
// outputs, norm, MLP; an encoder over all its tokens at once, a decoder as a session runs it.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "device/device.h"
#include "io/loading.h"
#include "runtime/options.h"

namespace sb {

struct PlanOptions {
  /// 2, 3, 4: coded planes, embedding and head coded4; 8: Q8_0 blocks; 16, 32: floats; 0: as the file has it. What is no matrix product
  /// stays as it is, float32 vectors and float16 tables where no file says.
  int bits = 0;
  int64_t context = 0;  // tokens; 0: as a session takes it
  int kv_bits = 16;     // 16; 8, 4, 3, 2 as docs/formats.md §3 has them: K8V8, K4V4, K4V2, K2V2

  /// Of data/options.json "plan".
  static PlanOptions of(const Options& options);
};

struct MemoryPlan {
  std::string name;
  PlanOptions options;  // with the context that it is about
  int64_t n_parameters = 0;
  uint64_t weight_bytes = 0;                 // once the model is open
  std::array<uint64_t, kTagCount> by_tag{};  // bytes at most, each; kHost is 0 as natively (docs/architecture.md)
  uint64_t peak_bytes = 0;                   // of all together; a load's staging is gone before a session's bytes come
  uint64_t device_bytes = 0;                 // what of it lies in a device's own memory; small vectors are there and on the host
  uint64_t download_bytes = 0;
  bool by_rule = false;  // activations and scratch, see above

  uint64_t bytes(Tag tag) const { return by_tag[size_t(tag)]; }
  /// Bits a parameter, scales and everything counted.
  double bpw() const;
  std::string json() const;
};

/// A row of data/architectures.json. Errors: kArgumentInvalid for another name, kOptionInvalid for bits "file".
Result<MemoryPlan> plan_architecture(std::string_view name, const PlanOptions& options, const Device& device);

/// Of a file or folder that Loading::shapes has read, and what its load costs. Errors: those of opening the model and building its plans.
Result<MemoryPlan> plan_model(const ModelFiles& shapes, const LoadCost& cost, const PlanOptions& options, const Device& device);

/// A set of planes of an [n, k] matrix as a load keeps it: planes, sv, c, su and filter, a block each.
uint64_t plane_blocks_bytes(const PlaneCode& code, int64_t n, int64_t k);

/// A cache of `n_tokens` tokens: keys and values of `n_layers` layers, [n_kv_heads · head_dim] each.
uint64_t kv_cache_bytes(int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, int64_t n_tokens, int bits);

}  // namespace sb
