// What tuning changes of a quantised decoder: row scales and column scales of its matrices, norm weights and biases.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quantize/forward.h"
#include "quantize/matrices.h"
#include "quantize/quantizer.h"

namespace sb {

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

/// A group of the plan, and what is tuned of it.
struct TunedMatrix {
  const GroupPlan* plan = nullptr;
  FinishedGroup* group = nullptr;  // null: nothing of it is tuned
  TunedNumbers row_scale, column_scale;
};

class TunedModel {
 public:
  using Vectors = std::map<std::string, TunedNumbers, std::less<>>;

  /// As Tuner::create.
  static Result<TunedModel> create(const ModelGraph& graph, const ModelPlan& plan, std::vector<std::shared_ptr<FinishedGroup>> groups,
                                   Substitutes substitutes);
  /// The matrix that a tensor is part of, when it is tuned, and the tensor's first row there.
  std::pair<TunedMatrix*, int64_t> matrix_of(std::string_view tensor);
  /// Null when it is not tuned.
  TunedNumbers* vector(std::string_view name);
  const Vectors& vectors() const { return vectors_; }
  /// Planes a weight, on the average of what is tuned.
  double mean_planes() const;
  /// Makes the floats of a layer's matrices (n_layers: the head's), and says what stands in for what. Valid until the next call.
  Substitutes floats_of(int64_t layer, ThreadPool& pool);
  /// Scales, as they are now, into the groups.
  void store();
  template <class Fn>
  void each(Fn fn) {
    for (TunedMatrix& matrix : matrices_) {
      if (!matrix.group) continue;
      fn(matrix.row_scale);
      fn(matrix.column_scale);
    }
    for (auto& [name, numbers] : vectors_) fn(numbers);
  }

 private:
  void find_matrices(const ModelPlan& plan);
  Status find_vectors(const ModelGraph& graph, const ModelPlan& plan);

  int64_t n_layers_ = 0;
  Substitutes substitutes_;
  std::vector<std::shared_ptr<FinishedGroup>> groups_;
  std::deque<TunedMatrix> matrices_;
  std::map<std::string, std::pair<TunedMatrix*, int64_t>, std::less<>> rows_of_;  // tensor → its matrix and first row there
  Vectors vectors_;
  std::vector<float> floats_;
};

}  // namespace sb
