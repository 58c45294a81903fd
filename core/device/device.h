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
  /// Errors: kOpUnsupported {device, op, dtype}, kMemoryExhausted.
  virtual Result<std::unique_ptr<Program>> compile(std::unique_ptr<Plan> plan) = 0;
  /// Starts a run. On the CPU it has completed when this returns.
  virtual Status submit(Program& program, const Scalars& scalars) = 0;
  /// Whether everything submitted has completed.
  virtual bool idle() = 0;
};

}  // namespace sb
