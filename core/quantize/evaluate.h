// How much a quantised model lost: perplexity, KL to a reference, next-token accuracy, over windows of held-out text.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/forward.h"

namespace sb {

/// Logits of so many positions at once: at 262,144 tokens of vocabulary a row has a megabyte.
inline constexpr int64_t kHeadTokens = 64;

/// A row of logits [V], looked over once.
struct LogitRow {
  double log_sum;  // log Σ e^logit
  int32_t top;     // the likeliest id
};
LogitRow logit_row(const float* logits, int64_t n);
/// Σ p · (log p − log q) in nats, of two rows that were looked over.
double kl_divergence(const float* reference, const LogitRow& reference_row, const float* logits, const LogitRow& row, int64_t n);

struct EvaluationReport {
  int64_t n_tokens = 0;  // counted positions
  double ppl = 0, ppl_se = 0;
  double top1 = 0;  // next tokens guessed right, 0 … 1
  bool has_reference = false;
  double kl = 0, kl_se = 0;  // nats; standard errors over windows
  double ppl_ref = 0, top1_ref = 0;
  double top1_drop = 0, top1_drop_se = 0;  // relative: 1 − top1 / top1_ref
  double agree = 0;                        // top-1 equal to the reference's
};

struct EvaluationOptions {
  int64_t context = 512;
  int64_t n_windows = 0;   // 0: all that the text gives
  bool count_all = false;  // every position but the first; else the second half of each window (as llama.cpp's perplexity)
};

/// A model, and what stands in for some of its tensors.
struct EvaluatedModel {
  const ModelGraph* graph;
  Substitutes substitutes = {};
};

/// Evaluates models of one vocabulary side by side, a window a step.
class Evaluation {
 public:
  /// `reference` may be null. `prefix`: ids that begin every window (BOS). The models and the device must outlive it.
  /// Errors: kTextTooShort {n_tokens, needed}.
  static Result<Evaluation> create(std::vector<EvaluatedModel> models, const ModelGraph* reference, Device& device,
                                   std::span<const int32_t> ids, std::span<const int32_t> prefix, const EvaluationOptions& options);
  /// One window; false when none is left.
  Result<bool> step();
  int64_t n_done() const { return n_done_; }
  int64_t n_windows() const { return int64_t(windows_.size()); }
  /// So far, of one model.
  EvaluationReport report(size_t model) const;

 private:
  struct Contender {
    const ModelGraph* graph;
    std::unique_ptr<Stretch> body, head;
    std::vector<float> hidden;                  // [T, D] of the window
    std::vector<double> nll, kl, right, agree;  // a window: sums over its counted positions
  };
  Result<Contender> contender(const EvaluatedModel& model) const;

  Device* device_ = nullptr;
  EvaluationOptions options_;
  std::vector<std::vector<int32_t>> windows_;
  std::vector<Contender> models_;  // the reference last, if there is one
  bool has_reference_ = false;
  int64_t n_done_ = 0, counted_from_ = 0;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace sb
