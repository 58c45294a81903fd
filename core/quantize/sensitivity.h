// How much KL each group of matrices costs when it alone is coded with few bits, the rest exact: what the allocation weighs against bytes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quantize/quantizer.h"

namespace sb {

class Sensitivity {
 public:
  /// Measures on the first windows of the text; moments come from all of it. The probe is coded2 for layers, coded3 for embedding and head.
  static Result<std::unique_ptr<Sensitivity>> create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                     std::span<const int32_t> prefix, QuantizerOptions options);
  /// A group; false when all are measured.
  Result<bool> step();
  void save(CheckpointWriter& to);
  /// Errors: kCheckpointInvalid.
  Status restore(CheckpointReader& from);
  /// KL of a group in a format, from its probe: KL grows with the square of the error, so it scales as the codes' distortions do.
  double loss(const std::string& group, const std::string& format) const;

 private:
  Sensitivity(const ModelGraph& graph, Device& device) : graph_(graph), device_(device) {}
  Status measure_reference();
  double probe_work(const GroupPlan& group) const;
  Result<double> kl_of(const Substitutes& substitutes, int64_t from_layer);

  const ModelGraph& graph_;
  Device& device_;
  std::unique_ptr<Quantizer> quantizer_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<std::vector<int32_t>> windows_;  // those measured on
  std::vector<std::vector<float>> before_;     // their x before the layer in hand
  /// Reference logits of kMostHeadTokens counted positions [n, V]: hundreds of megabytes where the vocabulary is large.
  struct Logits {
    Booked<float> values;  // in memory
    Place place;           // aside
  };
  std::vector<std::vector<Logits>> reference_;  // [window][positions / n]
  Booked<float> room_;                          // of logits that came from aside
  ScratchSpace* aside_ = nullptr;
  std::map<std::string, double> measured_;  // group → KL of its probe
  Pace* pace_ = nullptr;
};

/// Mean square error of a code on a unit Gaussian (docs/formats.md §1).
double code_distortion(const std::string& format);

}  // namespace sb
