// wgpu-native with a device that goes when a test says so: SUBBYTE_WEBGPU names this library, which has two functions of its own in front
// of the real ones.
#include <dlfcn.h>
#include <webgpu.h>

#include <cstdio>
#include <cstdlib>

namespace {

WGPUDevice g_device = nullptr;
int g_after = 0, g_left = -1;  // submits until it goes; below 0 it stays
int g_times = 0;               // and so do its successors

template <class T>
T real(T, const char* name) {
  static void* library = dlopen(SB_REAL_WEBGPU, RTLD_NOW | RTLD_LOCAL);
  return reinterpret_cast<T>(dlsym(library, name));
}

}  // namespace

extern "C" {

/// The device is destroyed after submit number `after` from now on, and so are its successors, `times` in all. Not before one: wgpu-native
/// ends the process when a submit finds its device gone (docs/architecture.md).
__attribute__((visibility("default"))) void lose_gpu(int after, int times) {
  g_after = g_left = after;
  g_times = times;
}

__attribute__((visibility("default"))) WGPUQueue wgpuDeviceGetQueue(WGPUDevice device) {
  g_device = device;
  return real(&wgpuDeviceGetQueue, "wgpuDeviceGetQueue")(device);
}

__attribute__((visibility("default"))) void wgpuQueueSubmit(WGPUQueue queue, size_t n, const WGPUCommandBuffer* commands) {
  real(&wgpuQueueSubmit, "wgpuQueueSubmit")(queue, n, commands);
  if (g_times == 0 || g_left < 0 || g_left-- > 0) return;
  real(&wgpuDeviceDestroy, "wgpuDeviceDestroy")(g_device);
  g_left = --g_times > 0 ? g_after : -1;
}
}
