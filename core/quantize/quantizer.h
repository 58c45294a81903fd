// Quantises a model layer by layer (docs/formats.md §2): calibration text runs through it, each group of matrices that share an input is
// encoded against that input's second moment, and what is finished goes out as writes into a model folder.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quantize/checkpoint.h"
#include "quantize/encode.h"
#include "quantize/forward.h"
#include "quantize/kept_windows.h"
#include "quantize/matrices.h"
#include "quantize/moments.h"
#include "quantize/pace.h"

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
  /// the source model's, and there are no refinements. With refinements there are two models to see: a base is made as if it stayed alone,
  /// and a refinement for what bases and refinements together give.
  bool sequential = true;
  uint64_t seed = 0;
  int n_threads = 1;
  /// What is finished stays in substitutes(); otherwise it leaves when the next layer begins.
  bool keeps_finished = false;
  ScratchSpace* aside = nullptr;  // where the windows are kept between two stages; in memory without one. Outlives the quantizer
  Pace* pace = nullptr;           // told what to expect and what was done; outlives the quantizer
};

/// Bytes that a quantizer takes at its peak beside the source's weights, what the device needs to run a window, and the planes of the layer
/// in hand. docs/formats.md §2 has the sum; the books of memory hold it (Tag::kScratch).
struct QuantizerBytes {
  uint64_t state = 0;   // what is kept of the text between two stages: grows with its tokens unless it lies aside
  uint64_t window = 0;  // of one window as floats
  uint64_t group = 0;   // moments, factors and rotated weights of a layer's largest group
  uint64_t head = 0;    // the same of embedding or head, for which no text is kept
  uint64_t total() const { return std::max(state + window + group, head); }
};
QuantizerBytes quantizer_bytes(const ModelPlan& plan, const QuantizerOptions& options, int64_t hidden, size_t n_windows);

/// A finished group: its arrays, ready to be written and to run.
struct FinishedGroup {
  std::string name;
  std::string format, refine;
  std::vector<uint32_t> signs;
  EncodedSet base, refinement;
  std::vector<std::byte> rows8;  // of format rows8: rows of Q8_0 blocks
  PlaneMatrix matrix;            // sees the arrays above
  PlaneMatrix base_matrix;       // of the base alone
  void bind();                   // lets it see them
};

class Quantizer {
 public:
  /// `ids`: the calibration text; `prefix` begins every window. The graph, its weights and the device must outlive it.
  /// Errors: kTextTooShort, kFormatUnknown, kFormatUnfit, kWeightsNotFinite.
  static Result<std::unique_ptr<Quantizer>> create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                   std::span<const int32_t> prefix, QuantizerOptions options);

  const ModelPlan& plan() const { return plan_; }
  /// One unit of work: the embedding, a group of a layer, the head. False when all is done.
  Result<bool> step();
  /// Groups finished since the last call, in order. The quantizer holds what substitutes() sees as well.
  std::vector<std::shared_ptr<FinishedGroup>> take_finished() { return std::exchange(finished_, {}); }
  /// What stands in for the source's tensors: of the layer in hand, or of all (keeps_finished).
  const Substitutes& substitutes() const { return prefixes_.back().substitutes; }
  /// The layer that the next step works on: −1 for the embedding, n_layers for the head, n_layers + 1 when all is done.
  int64_t layer() const { return layer_; }
  /// Whether the next step is the first of its layer.
  bool begins_layer() const { return group_ == 0; }
  int64_t n_windows() const { return int64_t(windows_.size()); }
  const std::vector<int32_t>& window(size_t i) const { return windows_[i]; }
  /// Where a layer after the first begins: what the source's layers before it make of a window [T, D]. Not when sequential.
  std::vector<float> x(size_t window);
  /// All that the next step depends on, and what substitutes() sees; restore() into one that was created alike and has taken no step.
  void save(CheckpointWriter& to);
  /// Errors: kCheckpointInvalid.
  Status restore(CheckpointReader& from);
  /// What a checkpoint brought back of substitutes(), in order.
  const std::vector<std::shared_ptr<FinishedGroup>>& alive() const { return alive_; }
  /// The work that it will be, to `pace`.
  static void expect(const ModelPlan& plan, const QuantizerOptions& options, size_t n_windows, Pace& pace);

 private:
  Quantizer(const ModelGraph& graph, Device& device, QuantizerOptions options);
  Status embed();
  Status layer_group(const GroupPlan& group);
  Status head();
  /// A stage over all windows; `moments`, one a prefix or none, see the input of `group`.
  Status run_stage(const Pass& pass, int64_t stage, std::span<Moments> moments, const GroupPlan* group);
  /// `moments`: of the base's input, and where there is a refinement of its.
  Result<std::shared_ptr<FinishedGroup>> encode_group(const GroupPlan& group, std::span<Moments> moments);
  void finish(std::shared_ptr<FinishedGroup> done, const GroupPlan& group);
  std::vector<const GroupPlan*> groups_of(int64_t layer) const;
  std::vector<KeptWindows*> kept();
  void forget_windows();
  bool is_kept(const GroupPlan& group) const { return options_.formats.of(group) == "source"; }
  bool is_refined(const GroupPlan& group) const { return !group.is_embedding && !group.is_head && !options_.formats.refine.empty(); }

  const ModelGraph& graph_;
  Device& device_;
  QuantizerOptions options_;
  ThreadPool pool_;
  ModelPlan plan_;
  std::vector<std::vector<int32_t>> windows_;
  KeptWindows exact_;  // between two stages, in the source model
  /// What is quantised so far, and when sequential what it makes of the windows: as bases, and where there are refinements with them.
  struct Prefix {
    KeptWindows kept;
    Substitutes substitutes;
  };
  std::vector<Prefix> prefixes_;
  std::vector<std::shared_ptr<FinishedGroup>> alive_, finished_;
  Place own_moment_;  // aside: a group's, while its correction is made
  int64_t layer_ = -1;
  size_t group_ = 0;  // of the layer
};

}  // namespace sb
