// Whether a device computes this model rightly: stretches of its own passes, over small random weights of its stored types, against the
// CPU. Before anybody reads an answer of it.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/model.h"

namespace sb {

/// A stretch's output may be off so much: packed inputs round to 8 bits, which is 6e-5 of even ones; a wrong kernel is off by all of it.
inline constexpr double kCheckNmse = 2e-3;  // Σ(a−b)² / Σb²
/// And no single number of it by more, in units of its root mean square: one wrong row among thousands.
inline constexpr double kCheckWorst = 0.5;

enum class CheckStep { kDone, kMore, kWaits };

class SelfCheck {
 public:
  /// `reference` computes the same. Neither the model's weights nor its caches are touched, and nothing of it may be running.
  SelfCheck(Model& model, std::unique_ptr<Device> reference);
  ~SelfCheck();
  SelfCheck(SelfCheck&&) = delete;

  /// What a verdict holds for: 16 hex digits of the device's description and of all kernels that this model's passes run. Empty where there
  /// is nothing to check.
  std::string key() const;
  /// One stretch. Errors: kDeviceWrong {adapter, op, error}; those of compiling and running.
  Result<CheckStep> step();
  /// {kernels: that the model's passes run, checked: of these, stretches, worst: Σ(a−b)²/Σb², ms}.
  std::string json() const;

 private:
  struct Stretch;
  Result<CheckStep> choose();
  /// Nodes [begin, end) of a pass.
  struct Place {
    const Plan* pass;
    size_t begin, end;
  };
  bool find(const Plan& pass);
  Status start(Stretch& stretch);
  Status run(Stretch& stretch, int32_t first);
  Status judge(Stretch& stretch);

  Model& model_;
  std::unique_ptr<Device> reference_;
  std::set<uint64_t> kernels_, checked_;  // by their texts
  std::set<std::string> known_;           // stretches that have been looked at
  std::vector<std::unique_ptr<Plan>> passes_;
  std::vector<Place> waiting_;  // the next one last
  std::unique_ptr<Stretch> running_;
  uint64_t n_begun_ = 0, n_checked_ = 0;
  double worst_ = 0, began_ms_ = 0, ms_ = 0;
};

}  // namespace sb
