// A chain of row ops that becomes one dispatch: a workgroup a token runs its stages one after the other (kernels/rows).
#pragma once

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "device/webgpu/lowering.h"

namespace sb {

/// A file of kernels/rows with its holes filled but for $A, $B, $C and $N.
struct RowText {
  std::string name, text;
  uint32_t local = 0;  // columns, when each column of its output needs the same column of its inputs only, or its neighbours in 128
};

class Chain {
 public:
  /// A stage's parameters: $A, $B and $C of its text.
  using Words = const std::vector<uint32_t>&;

  bool empty() const { return stages_.empty(); }
  /// Whether a stage over n_tokens rows, which writes the cache of `layer` unless that is −1, can join.
  bool takes(int64_t n_tokens, int32_t layer) const;
  /// `shared`: texts that stages may have in common, each once in the dispatch.
  void add(int64_t n_tokens, RowText text, Words words, const std::vector<std::string>& shared, int32_t layer);
  /// For a stage that reads a stored matrix, and is the only one: bindings 4 and 5, parameters from P[3] on.
  void read(GpuId weights, GpuId weights_2, std::vector<uint32_t> params);
  /// The dispatch; the chain is empty again.
  GpuStep finish();

 private:
  struct Stage {
    std::string text;
    std::vector<uint32_t> words;
    uint32_t local;
  };
  uint32_t columns() const;

  std::vector<Stage> stages_;
  std::string name_;
  std::set<std::string> shared_;
  std::string helpers_;
  std::vector<uint32_t> more_params_;
  GpuId weights_[2] = {0, 0};
  int64_t n_tokens_ = 0;
  int32_t layer_ = -1;
};

}  // namespace sb
