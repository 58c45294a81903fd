// The GPU as a device (core/device/device.h), over gpu.h.
#pragma once

#include "device/device.h"

namespace sb {

/// Errors: kDeviceMissing.
Result<std::unique_ptr<Device>> make_webgpu_device();

}  // namespace sb
