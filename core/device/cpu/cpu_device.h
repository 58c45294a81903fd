// The CPU as a device: walks a compiled plan's steps on a thread pool.
#pragma once

#include <memory>

#include "device/device.h"

namespace sb {

struct CpuOptions {
  int threads = 0;           // 0: what the machine has
  std::string isa = "auto";  // a kernel table's name, "scalar", or "auto" for the best that runs here
  bool exact = true;         // all plans are made exact (Plan::make_exact)
};

/// Errors: kDeviceMissing {device, why} when the instruction set is not here.
Result<std::unique_ptr<Device>> make_cpu_device(const CpuOptions& options);

}  // namespace sb
