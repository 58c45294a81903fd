// Tuning after quantising (docs/formats.md §2): row scales, column scales, norm weights and biases of a quantised decoder learn from the
// source model, whose next-token distributions over calibration text the quantised ones should match. The planes stay as they are.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/backward.h"
#include "quantize/matrices.h"
#include "quantize/quantizer.h"

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

/// Numbers that are tuned together: factors of what they were (scales, gains), or sums with it (biases).
struct TunedNumbers {
  enum class Kind : uint8_t { kScale, kGain, kBias } kind = Kind::kScale;
  float offset = 0;  // kGain: what the norm adds to the stored number
  float unit = 1;    // kBias: how much a change of 1 is
  std::vector<float> initial, change, best;
  std::vector<float> gradient, mean, square;  // of the loss by `change`; Adam's moments
  std::vector<float> value;                   // as stored: scales rounded to float16, gains without their offset

  void start(std::vector<float> from);
  /// Adam (Kingma & Ba 2015), then the gradient is zero.
  void update(double rate, int64_t step);
  /// change → value.
  void apply();
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
  const std::map<std::string, TunedNumbers, std::less<>>& vectors() const { return vectors_; }

 private:
  struct Matrix {
    const GroupPlan* plan;
    FinishedGroup* group = nullptr;  // null: nothing of it is tuned
    TunedNumbers row_scale, column_scale;
  };
  /// Runs windows one by one, while others run theirs.
  struct Worker {
    std::unique_ptr<Device> device;
    std::unique_ptr<ThreadPool> pool;
  };
  /// What a window adds to the gradients, summed over windows in their order: the same whoever ran which when.
  struct WindowGradients final : GradientSink {
    Tuner& tuner;
    ThreadPool& pool;
    std::map<TunedNumbers*, std::vector<float>> sums;
    WindowGradients(Tuner& t, ThreadPool& p) : tuner(t), pool(p) {}
    std::vector<float>& of(TunedNumbers& numbers);
    std::span<float> vector(std::string_view name) override;
    void product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) override;
    void input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) override;
  };
  /// A pass over some windows: to learn, or to measure.
  struct Job {
    std::vector<size_t> windows;
    bool learns = false;
  };

  Tuner(const ModelGraph& graph, Device& device, Substitutes substitutes, TuneOptions options);
  Status find_vectors(const ModelPlan& plan);
  void choose_windows();
  void choose_rate();
  Status hire();
  /// Run(i) for i in [0, n), shared out among the workers; `make` gives each its own. The first error by i.
  using Run = std::function<Status(size_t i)>;
  Status share_out(size_t n, const std::function<Result<Run>(Worker&)>& make);
  void add(const WindowGradients& gradients);
  Status teach(std::span<const size_t> windows);
  Status forward(int64_t layer);
  Status head();
  Result<double> head_of(size_t window, Stretch& source, ReversibleStretch& student, WindowGradients& gradients);
  Status backward(int64_t layer);
  void end_job();
  void begin_job();
  void finish();
  /// Makes the floats of a layer's matrices (n_layers: the head's), and says what stands in for what.
  Substitutes floats_of(int64_t layer);
  template <class Fn>
  void each(Fn fn);

  const ModelGraph& graph_;
  Device& device_;
  Substitutes substitutes_;
  TuneOptions options_;
  ThreadPool pool_;
  std::vector<Worker> workers_;
  std::unique_ptr<ThreadPool> crew_;  // a thread for each of them
  DecoderShape shape_;
  std::vector<std::shared_ptr<FinishedGroup>> groups_;
  std::deque<Matrix> matrices_;
  std::map<std::string, std::pair<Matrix*, int64_t>, std::less<>> rows_of_;  // tensor → its matrix and first row there
  std::map<std::string, TunedNumbers, std::less<>> vectors_;
  std::vector<std::vector<int32_t>> windows_;
  std::vector<std::vector<float>> taught_;  // a window: what the source's layers make of it [T, D]
  std::vector<size_t> train_, held_out_, order_;
  std::vector<float> floats_;

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
