// The contract of a device: it compiles plans and replays them. Nothing blocks: a run is submitted and asked about.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "device/kv_pages.h"
#include "device/plan.h"

namespace sb {

/// What changes from one run of a program to the next.
struct Scalars {
  std::span<const int32_t> ids;  // [T]
  int32_t position = 0;          // of ids[0]: tokens in the cache already
  KvPages* kv = nullptr;         // room for position + T tokens is reserved
};

/// What running a plan takes beside weights and cache. A device's programs share these bytes: the largest counts.
struct RunBytes {
  uint64_t activations = 0, scratch = 0;
};

/// A compiled plan, tied to the device that made it.
class Program {
 public:
  virtual ~Program() = default;
  /// A named output of the last completed run, dense float32 [rows, columns]; valid until the device runs anything else.
  virtual std::span<float> output(std::string_view name) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  /// What it is and why: {"device", "isa", "threads", …} as JSON text.
  virtual std::string describe() const = 0;
  /// Threads that run its kernels; 1 where it has none of its own.
  virtual int n_threads() const = 0;
  /// Another one with the same kernels, that has memory of its own and can run at the same time. Errors: kMemoryExhausted.
  virtual Result<std::unique_ptr<Device>> twin(int n_threads) const = 0;
  /// Errors: kOpUnsupported {device, op, dtype}, kMemoryExhausted.
  virtual Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan> plan) = 0;
  /// What a run of `plan` takes whose last token is the cache's token number `context`. Reads no weight, takes nothing.
  virtual RunBytes measure(const Plan& plan, int64_t context) const = 0;
  /// Gives the input `name` of a plan (Plan::input) its numbers for the next run of this program. Errors: kMemoryExhausted.
  virtual Status fill(Program& program, std::string_view name, std::span<const float> values) = 0;
  /// Starts a run. On the CPU it has completed when this returns.
  virtual Status submit(Program& program, const Scalars& scalars) = 0;
  /// Whether everything submitted has completed.
  virtual bool idle() = 0;
};

}  // namespace sb
