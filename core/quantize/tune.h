// Tuning after quantising (docs/formats.md §2): row scales, column scales, norm weights and biases of a quantised decoder learn from the
// source model, whose next-token distributions over calibration text the quantised ones should match. The planes stay as they are.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/window_gradients.h"

namespace sb {

struct TuneOptions {
  int64_t context = 512;        // tokens of a window
  int64_t n_steps = 25;         // of the optimiser
  int64_t batch_tokens = 4096;  // of a step, in whole windows
  double rate = 0;              // at its height, relative change of a scale a step; 0: by the bits of the linears
  int64_t n_calibrated = 0;     // tokens at the text's begin that calibration saw
  uint64_t seed = 0;            // of the windows' order
  int n_threads = 1;
};

/// What came of it. KL: source to quantised, nats a token, over held-out windows, with the scales as they are stored.
struct TuneReport {
  double kl_before = 0, kl_after = 0;
  std::vector<std::pair<int64_t, double>> measured;  // steps, and the KL after them
  int64_t n_steps = 0;                               // that the kept state has seen; 0 when nothing was better than the start
  int64_t n_tokens = 0;                              // of different text that it learnt from
  int64_t n_held_out = 0;                            // tokens
};

class Tuner {
 public:
  /// `groups`: what the quantizer made of `plan`, with `substitutes` seeing it; one set of planes each. Graph and plan outlive the tuner.
  /// `ids`: calibration text; its last windows are held out. Errors: kTextTooShort when there is no window to learn from and one to hold
  /// out.
  static Result<std::unique_ptr<Tuner>> create(const ModelGraph& graph, Device& device, const ModelPlan& plan,
                                               std::vector<std::shared_ptr<FinishedGroup>> groups, Substitutes substitutes,
                                               std::span<const int32_t> ids, std::span<const int32_t> prefix, TuneOptions options);
  /// One unit of work: a layer, forward or back, of a step's windows. False when all is done and the groups have their new scales.
  Result<bool> step();
  /// Where the pass in hand begins: all that it and those after it depend on. restore() into one that was created alike and has taken no
  /// step. What the source makes of the windows is made anew.
  void save(CheckpointWriter& to);
  /// Errors: kCheckpointInvalid.
  Status restore(CheckpointReader& from);
  double progress() const;
  const TuneReport& report() const { return report_; }
  /// Norm weights and biases as tuned, by name, float32 as the model stores them.
  const TunedModel::Vectors& vectors() const { return model_.vectors(); }

 private:
  /// Runs windows one by one, while others run theirs.
  struct Worker {
    std::unique_ptr<Device> device;
    std::unique_ptr<ThreadPool> pool;
  };
  /// A pass over some windows: to learn, or to measure.
  struct Job {
    std::vector<size_t> windows;
    bool learns = false;
  };

  Tuner(const ModelGraph& graph, Device& device, TunedModel model, TuneOptions options);
  void choose_windows();
  void choose_rate();
  Status hire();
  /// Run(i) for i in [0, n), shared out among the workers; `make` gives each its own. The first error by i.
  using Run = std::function<Status(size_t i)>;
  Status share_out(size_t n, const std::function<Result<Run>(Worker&)>& make);
  Status teach(std::span<const size_t> windows);
  Status forward(int64_t layer);
  Status head();
  Result<double> head_of(size_t window, Stretch& source, ReversibleStretch& student, WindowGradients& gradients);
  Status backward(int64_t layer);
  void end_job();
  void begin_job();
  void finish();

  const ModelGraph& graph_;
  Device& device_;
  TunedModel model_;
  TuneOptions options_;
  ThreadPool pool_;
  std::vector<Worker> workers_;
  std::unique_ptr<ThreadPool> crew_;  // a thread for each of them
  DecoderShape shape_;
  std::vector<std::vector<int32_t>> windows_;
  std::vector<std::vector<float>> taught_;  // a window: what the source's layers make of it [T, D]
  std::vector<size_t> train_, held_out_, order_;

  Job job_;
  int64_t at_ = 0;                                  // unit of the job
  std::vector<std::vector<std::vector<float>>> x_;  // [window of the job][layer]: the layer's input [T, D]; the last is the head's
  std::vector<std::vector<float>> dx_;              // [window of the job]: dL/d(input of the layer gone back through) [T, D]
  double kl_ = 0;                                   // of the job, summed over tokens
  int64_t n_steps_ = 0, n_worse_ = 0;
  double best_kl_ = 0;
  // Windows × layers, forward: done so far without what the source did, that when the job began, and all there is with it.
  double worked_ = 0, worked_before_ = 0, work_ = 1;
  bool done_ = false;
  TuneReport report_;
};

}  // namespace sb
