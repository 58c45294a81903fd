// A model against reference outputs: golden.safetensors holds `in.*` and `out.*`, made by another implementation.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "runtime/model.h"

namespace sb {

/// |a − b| ≤ kGoldenTolerance · (1 + |b|) for every element, as the fixtures' README has it; ids equal.
inline constexpr double kGoldenTolerance = 1e-3;

struct GoldenOutput {
  std::string name;    // "out.logits"
  uint64_t n = 0;      // elements
  double max_abs = 0;  // largest |a − b|
  double worst = 0;    // largest |a − b| / (1 + |b|)
  bool passed = false;
};

struct GoldenReport {
  bool passed = false;
  std::vector<GoldenOutput> outputs;
  std::vector<std::byte> dump;  // what was computed, as a safetensors file under the golden names

  std::string json() const;
};

enum class GoldenStep { kDone, kMore, kWaits };

/// A decoder on in.input_ids [1, T] in float32: out.logits, out.hidden_1, out.hidden_last and out.greedy_ids, whichever are there. One pass
/// a step, because a device may answer later than it is asked.
class GoldenRun {
 public:
  /// The model and the bytes of `golden` must stay until the last step. Errors: those of reading the file; kArgumentInvalid when it has no
  /// in.input_ids; kTokenOutside, kPromptTooLong; kSessionBusy while a session runs; and those of running.
  static Result<std::unique_ptr<GoldenRun>> start(Model& model, std::span<const std::byte> golden);
  ~GoldenRun();
  GoldenRun(GoldenRun&&) = delete;
  /// Errors: kArgumentInvalid when the file names an output that this model does not have; those of running.
  Result<GoldenStep> step();
  /// Complete once a step was the last.
  const GoldenReport& report() const { return report_; }

 private:
  /// Computed values waiting to be written out.
  struct Computed {
    std::vector<SafetensorsEntry> entries;
    std::deque<std::vector<std::byte>> bytes;  // does not move what entries point to

    template <class T>
    void add(const std::string& name, Dtype dtype, const Shape& shape, std::span<const T> values) {
      const auto raw = std::as_bytes(values);
      bytes.emplace_back(raw.begin(), raw.end());
      entries.push_back({name, dtype, shape, bytes.back()});
    }
  };

  GoldenRun(Model& model, WeightStore file, std::span<const int32_t> ids);
  Result<GoldenStep> advance();
  Status pass(const Pass& pass, std::span<const int32_t> ids, int64_t position);
  Status take_whole(Program& done);
  Status take_greedy(Program& done);

  Model& model_;
  WeightStore file_;
  std::span<const int32_t> ids_;  // [T]
  KvPages kv_;
  Program* running_ = nullptr;
  bool is_whole_ = true;  // it runs over the whole input
  std::vector<int32_t> greedy_;
  int64_t position_ = 0;  // of the next greedy id
  GoldenReport report_;
  Computed computed_;
};

}  // namespace sb
