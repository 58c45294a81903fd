// Quantises a model layer by layer (docs/formats.md §2): calibration text runs through it, each group of matrices that share an input is
// encoded against that input's second moment, and what is finished goes out as writes into a model folder.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quantize/encode.h"
#include "quantize/forward.h"
#include "quantize/matrices.h"

namespace sb {

/// What each group becomes: "coded2" … "plain4", "rows8", or "source" (kept as it is).
struct FormatChoice {
  std::string linears = "coded3";
  std::string embedding = "coded4";
  std::string refine;                          // "" or a code for the refinement of every linear
  std::map<std::string, std::string> by_name;  // group name → code, before the two above

  const std::string& of(const GroupPlan& group) const;
};

/// Whether a group can become that. Errors: kFormatUnknown, kFormatUnfit.
Status check_format(const GroupPlan& group, const std::string& format);

struct QuantizerOptions {
  FormatChoice formats;
  int64_t context = 512;  // tokens of a calibration window
  /// Each group sees the inputs that the quantised groups before really give, and makes up for half of what they lost. Otherwise all see
  /// the source model's.
  bool sequential = true;
  uint64_t seed = 0;
  int n_threads = 1;
};

/// A finished group: its arrays, ready to be written and to run.
struct FinishedGroup {
  std::string name;
  std::string format, refine;
  std::vector<uint32_t> signs;
  EncodedSet base, refinement;
  std::vector<std::byte> rows8;  // of format rows8: rows of Q8_0 blocks
  PlaneMatrix matrix;            // sees the arrays above
};

class Quantizer {
 public:
  /// `ids`: the calibration text; `prefix` begins every window. The graph, its weights and the device must outlive it.
  /// Errors: kTextTooShort, kFormatUnknown, kFormatUnfit, kWeightsNotFinite.
  static Result<std::unique_ptr<Quantizer>> create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                   std::span<const int32_t> prefix, QuantizerOptions options);

  const ModelPlan& plan() const { return plan_; }
  /// One unit of work: a layer, the embedding, the head. False when all is done.
  Result<bool> step();
  /// Groups finished since the last call, in order; the caller takes them over. They must live while the quantizer steps on.
  std::vector<std::shared_ptr<FinishedGroup>> take_finished() { return std::exchange(finished_, {}); }
  /// All finished so far, as what stands in for the source's tensors.
  const Substitutes& substitutes() const { return substitutes_; }
  /// 0 … 1, by weights encoded.
  double progress() const;
  int64_t n_windows() const { return int64_t(windows_.size()); }
  const std::vector<int32_t>& window(size_t i) const { return windows_[i]; }
  /// What the layers done so far make of a window [T, D].
  const std::vector<float>& x(size_t window) const { return x_[window]; }

 private:
  Quantizer(const ModelGraph& graph, Device& device, QuantizerOptions options);
  Status embed();
  Status layer(int64_t i);
  Status layer_alone(int64_t i, const std::vector<const GroupPlan*>& groups);
  Status layer_in_turn(int64_t i, const std::vector<const GroupPlan*>& groups);
  Status head();
  Result<std::vector<std::shared_ptr<FinishedGroup>>> encode_groups(const std::vector<const GroupPlan*>& groups,
                                                                    const std::vector<std::vector<float>>& moments,
                                                                    const std::vector<Correction>& corrections = {});
  void finish(std::shared_ptr<FinishedGroup> done, const GroupPlan& group);

  const ModelGraph& graph_;
  Device& device_;
  QuantizerOptions options_;
  ThreadPool pool_;
  ModelPlan plan_;
  std::vector<std::vector<int32_t>> windows_;
  std::vector<std::vector<float>> x_;        // a window: what the layers so far give [T, D]
  std::vector<std::vector<float>> exact_x_;  // the same in the source model, when sequential
  Substitutes substitutes_;
  std::vector<std::shared_ptr<FinishedGroup>> alive_, finished_;
  int64_t next_ = -1;  // layer; −1: the embedding, n_layers: the head
  int64_t n_encoded_ = 0, n_weights_ = 0;
};

}  // namespace sb
