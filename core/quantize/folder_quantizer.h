// Quantises a loaded model into a folder: measures sensitivity and allocates bits where that is asked for, quantises layer by layer, and
// says which bytes go where. The host writes them; nothing here knows a disk.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/folder_layout.h"
#include "quantize/allocate.h"
#include "quantize/give_back.h"
#include "quantize/import.h"
#include "quantize/quantizer.h"
#include "quantize/sensitivity.h"
#include "quantize/tune.h"

namespace sb {

/// Bytes for a file of the folder. Files come in pieces, at rising offsets within a component.
struct FolderWrite {
  std::string file;
  uint64_t offset = 0;
  std::vector<std::byte> bytes;
};

struct FolderOptions {
  std::string bits = "3";             // 2, 3, 4 (coded), mixed, or the name of a format
  double bpw = 0;                     // mixed: bits a weight of the whole model, embedding counted; 0: from n_bytes
  uint64_t n_bytes = 0;               // mixed: of all weights
  std::string embedding;              // format of embedding and head; "" chooses coded4, or inside the allocation when mixed
  uint64_t shard_bytes = 50'000'000;  // at most
  bool refine = false;                // a base and a refinement of every linear layer: bits 2 makes both coded2, a name of planes both that
  std::string allocation;             // JSON {group: format}: taken as it is, no sensitivity run
  int64_t context = 512;
  int64_t most_tokens = 0;  // of the calibration text; 0: all
  bool tune = false;        // scales and norms learn from the source once all is quantised
  int64_t tune_steps = 25;
  double tune_rate = 0;  // 0: by the bits
  uint64_t seed = 0;
  int n_threads = 1;
  Scratch* scratch = nullptr;  // what grows with the text lies there; in memory without one. Outlives the quantizer
};

/// What is known of the model besides its tensors.
struct FolderSource {
  const ModelGraph* graph = nullptr;
  const WeightStore* weights = nullptr;
  std::vector<std::pair<std::string, std::string>> texts;  // config.json, tokenizer.json …: name → contents
};

class FolderQuantizer {
 public:
  /// Errors: kOptionInvalid, kBudgetTooSmall {minimum}, kTextTooShort, those of Quantizer.
  static Result<std::unique_ptr<FolderQuantizer>> create(FolderSource source, Device& device, std::span<const int32_t> ids,
                                                         std::span<const int32_t> prefix, FolderOptions options);
  /// A stretch of work (a group of matrices). False when everything has been written out through next_write().
  Result<bool> step();
  /// Queues a checkpoint: behind the writes that wait already, next_write() gives the file kCheckpointFile, from its start; all of it is to
  /// be taken before the next step. False, and nothing queued, once all is done. Tuning goes on at the optimiser's step or the measurement
  /// that it was in.
  bool checkpoint();
  /// Before the first step: goes on where a checkpoint was made, by a run over the same source, text and options. Its other files are as
  /// they were then or later. Errors: kSourceChanged, kCheckpointForeign, kCheckpointInvalid.
  Status resume(std::span<const std::byte> checkpoint);
  /// The oldest write not taken yet; false when there is none.
  bool next_write(FolderWrite& out);
  /// {phase: "sensitivity"|"quantize"|"tune"|"done", fraction, seconds_left?} as JSON: of the whole run before tuning, by measured rates;
  /// of tuning by itself.
  std::string progress_json() const;
  /// After the last step: what was chosen and what each group's proxy came to, for the model card: {bpw, bpw_linears, bpw_embedding,
  /// weight_bytes, n_parameters, linear_proxy, formats: {name: code}, imported?: {name: levels}, sensitivity?: {name: {code: loss}},
  /// tuning?: {steps, kl_before, kl_after, tokens, held_out_tokens, measured: [{steps, kl}]}}.
  std::string report_json() const;

 private:
  FolderQuantizer(FolderSource source, Device& device, FolderOptions options);
  Status choose_formats();
  Status allocate_formats();
  /// Bytes of all weights that a mixed allocation may spend; those of what is kept as it is; kBudgetTooSmall with what it would take.
  uint64_t budget() const;
  uint64_t kept_total() const;
  Status below(uint64_t minimum) const;
  /// What a mixed allocation may make of a group, the smallest first.
  std::vector<std::string> choices_of(const GroupPlan& group) const;
  Status lay_out();
  Status start_quantizing();
  Status write_finished();
  Status write_group(const FinishedGroup& group);
  Status write_kept(int64_t layer);
  Status start_tuning();
  Status write_tuned();
  Status close();
  uint64_t bytes_as(const GroupPlan& group, const std::string& format) const;
  Status lay_out_import(const GroupPlan& group, const ImportedGroup& imported, const std::string& component);
  void write_import(const GroupPlan& group, const ImportedGroup& imported);
  /// In pieces where it is larger than a shard.
  Status add_tensor(const std::string& name, const char* type, Shape shape, const std::string& component, bool is_refinement = false);
  uint64_t source_sum() const;
  uint64_t options_sum() const;
  void write_tensor(const std::string& name, std::span<const std::byte> bytes);
  void write_piece(size_t number, std::span<const std::byte> bytes);

  FolderSource source_;
  Device& device_;
  FolderOptions options_;
  std::vector<int32_t> ids_, prefix_;
  ModelPlan plan_;
  FormatChoice formats_;
  std::map<std::string, ImportedGroup> imports_;  // to the quantizer they are "source"
  Pace pace_;
  std::optional<ScratchSpace> aside_;
  std::unique_ptr<Sensitivity> sensitivity_;
  std::vector<AllocationGroup> losses_;
  std::unique_ptr<Quantizer> quantizer_;
  std::vector<int32_t> tune_ids_;                      // all of the text: tuning reads more of it than calibration
  std::vector<std::shared_ptr<FinishedGroup>> tuned_;  // every group, where they are to be tuned
  bool tunes_next_ = false;                            // all is quantised
  std::unique_ptr<Tuner> tuner_;
  std::vector<FolderTensor> tensors_;
  std::unique_ptr<FolderLayout> layout_;
  std::unique_ptr<FolderSums> sums_;
  std::map<std::string, size_t> tensor_numbers_;
  std::vector<SplitEntry> split_;
  std::vector<MatrixEntry> matrices_;
  std::vector<RefinementValue> refinements_;
  std::deque<FolderWrite> writes_;
  std::unique_ptr<CheckpointWriter> checkpoint_;
  uint64_t weight_bytes_ = 0, linear_bytes_ = 0, embedding_bytes_ = 0;
  int64_t n_parameters_ = 0, n_linear_ = 0, n_embedding_ = 0;
  double proxy_sum_ = 0;
  int64_t n_proxies_ = 0;
  bool done_ = false;
};

/// Exact bytes of a group in a format: planes, scales, signs, filter.
uint64_t group_bytes(const GroupPlan& group, const std::string& format);

}  // namespace sb
