// The GPU as a device (core/device/device.h), over gpu.h.
#pragma once

#include "device/device.h"

namespace sb {

/// Errors: kDeviceMissing, also when its limits are too small; or when it computes in software and `takes_software` is false.
Result<std::unique_ptr<Device>> make_webgpu_device(bool takes_software = true);

}  // namespace sb
