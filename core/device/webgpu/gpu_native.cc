// gpu.h over a webgpu.h library that is loaded at run time: wgpu-native as PyPI's `wgpu` carries it. Nothing is linked, so a machine
// without it runs on the CPU.
#if !defined(__wasm__)
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/host.h"
#include "base/json.h"
#include "device/device.h"
#include "device/webgpu/gpu.h"

#if defined(SB_HAS_WEBGPU_H)
#include <dlfcn.h>
#include <webgpu.h>

namespace sb {
namespace {

// Every function of webgpu.h that is used, looked up by name once.
// clang-format off
#define SB_GPU_FUNCTIONS(F) \
  F(CreateInstance) F(InstanceRequestAdapter) F(InstanceProcessEvents) F(AdapterRequestDevice) F(AdapterGetLimits) \
  F(AdapterGetInfo) F(AdapterInfoFreeMembers) F(AdapterHasFeature) F(AdapterRelease) F(DeviceGetQueue) F(DeviceCreateBuffer) \
  F(DeviceCreateShaderModule) F(DeviceCreateComputePipeline) F(DeviceCreateBindGroup) F(DeviceCreateCommandEncoder) \
  F(ComputePipelineGetBindGroupLayout) F(BindGroupLayoutRelease) F(ShaderModuleRelease) F(BufferRelease) F(BufferDestroy) \
  F(BufferMapAsync) F(BufferGetConstMappedRange) F(BufferUnmap) F(BindGroupRelease) F(CommandEncoderBeginComputePass) \
  F(CommandEncoderCopyBufferToBuffer) F(CommandEncoderFinish) F(CommandEncoderRelease) F(ComputePassEncoderSetPipeline) \
  F(ComputePipelineRelease) \
  F(ComputePassEncoderSetBindGroup) F(ComputePassEncoderDispatchWorkgroups) F(ComputePassEncoderEnd) \
  F(ComputePassEncoderRelease) F(QueueSubmit) F(QueueWriteBuffer) F(CommandBufferRelease)
// clang-format on

struct Api {
#define SB_GPU_FIELD(name) decltype(&wgpu##name) name = nullptr;
  SB_GPU_FUNCTIONS(SB_GPU_FIELD)
#undef SB_GPU_FIELD
  // wgpu-native's own: it completes maps only when polled. Other libraries do so in InstanceProcessEvents.
  uint32_t (*DevicePoll)(WGPUDevice, uint32_t wait, const void* submission) = nullptr;
};

struct Read {
  WGPUBuffer buffer = nullptr;  // kept for the slot's next read of the same size or less
  uint64_t capacity = 0, n_bytes = 0;
  enum class State { kFree, kPending, kCome, kFailed } state = State::kFree;
};

struct Gpu {
  Api api;
  std::string why = "it was not opened", info, error;
  uint32_t opening = 0;  // of the device, from 1
  bool is_lost = false;
  WGPUInstance instance = nullptr;
  WGPUAdapter adapter = nullptr;
  WGPUDevice device = nullptr;
  WGPUQueue queue = nullptr;
  WGPULimits limits = WGPU_LIMITS_INIT;
  std::vector<WGPUBuffer> buffers = {nullptr};
  std::vector<GpuId> free_buffers, free_binds;
  std::vector<WGPUComputePipeline> pipelines = {nullptr};
  std::vector<WGPUBindGroup> binds = {nullptr};
  std::array<Read, kGpuSlots> reads;
  uint64_t n_writing = 0;  // bytes since the queue was last empty
};

Gpu& gpu() {
  static Gpu* one = new Gpu;  // lives as long as the process: drivers do not like to be torn down by exit()
  return *one;
}

WGPUStringView view(const char* text, size_t n) { return {text, n}; }
std::string text(WGPUStringView v) {
  if (!v.data) return "";
  return v.length == WGPU_STRLEN ? std::string(v.data) : std::string(v.data, v.length);
}

void lose(WGPUStringView message) {
  gpu().is_lost = true;
  gpu().error = "lost: " + text(message);  // what else is wrong is wrong because of this
}

void keep_error(const char* kind, WGPUStringView message) {
  // wgpu-native tells of a lost device as the error of whatever was asked of it next.
  if (text(message).find("device is lost") != std::string::npos) return lose(message);
  if (gpu().error.empty()) gpu().error = std::string(kind) + ": " + text(message);
}

bool load_api(Gpu& g) {
  const char* chosen = std::getenv("SUBBYTE_WEBGPU");
  std::vector<std::string> names;
  if (chosen) {
    names = {chosen};
  } else {
    names = {"libwgpu_native.so", "libwgpu_native.dylib"};
    // Where ./dev puts what it fetches.
    if (const char* cache = std::getenv("SUBBYTE_CACHE")) names.push_back(std::string(cache) + "/wgpu/libwgpu_native.so");
    if (const char* home = std::getenv("HOME")) names.push_back(std::string(home) + "/.cache/subbyte/wgpu/libwgpu_native.so");
  }
  void* library = nullptr;
  for (const std::string& name : names) {
    if (!library) library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (!library) {
    g.why = chosen ? std::string("SUBBYTE_WEBGPU names ") + chosen + ", which cannot be loaded"
                   : "no libwgpu_native was found; SUBBYTE_WEBGPU may name it";
    return false;
  }
  bool has_all = true;
#define SB_GPU_LOAD(name)                                                            \
  g.api.name = reinterpret_cast<decltype(g.api.name)>(dlsym(library, "wgpu" #name)); \
  has_all = has_all && g.api.name;
  SB_GPU_FUNCTIONS(SB_GPU_LOAD)
#undef SB_GPU_LOAD
  g.api.DevicePoll = reinterpret_cast<decltype(g.api.DevicePoll)>(dlsym(library, "wgpuDevicePoll"));
  if (!has_all) g.why = "the library lacks functions of webgpu.h";
  return has_all;
}

constexpr std::pair<WGPUFeatureName, const char*> kFeatures[] = {{WGPUFeatureName_ShaderF16, "shader-f16"},
                                                                 {WGPUFeatureName_Subgroups, "subgroups"},
                                                                 {WGPUFeatureName_TimestampQuery, "timestamp-query"}};

/// Lets go of what is nobody else's: buffers and bind groups are freed by who has them. The device itself stays: the library waits for its
/// queue when it releases one, and gives the whole process up where that fails.
void forget_lost(Gpu& g) {
  for (Read& read : g.reads) {
    if (read.buffer) g.api.BufferRelease(read.buffer);
    read = {};
  }
  for (WGPUComputePipeline pipeline : g.pipelines) {
    if (pipeline) g.api.ComputePipelineRelease(pipeline);
  }
  g.pipelines = {nullptr};
  g.device = nullptr;
  g.adapter = nullptr;
  g.error.clear();
  g.is_lost = false;
}

bool open(Gpu& g) {
  if (g.device) forget_lost(g);
  if (!g.instance && !load_api(g)) return false;
  // A layer of Mesa's orders devices by the display, and complains where there is none.
  if (!std::getenv("XDG_RUNTIME_DIR")) setenv("NODEVICE_SELECT", "1", 0);
  WGPUInstanceDescriptor instance = WGPU_INSTANCE_DESCRIPTOR_INIT;
  if (!g.instance) g.instance = g.api.CreateInstance(&instance);
  if (!g.instance) {
    g.why = "the library makes no instance";
    return false;
  }
  WGPURequestAdapterOptions options = WGPU_REQUEST_ADAPTER_OPTIONS_INIT;
  options.powerPreference = WGPUPowerPreference_HighPerformance;
  WGPURequestAdapterCallbackInfo on_adapter = WGPU_REQUEST_ADAPTER_CALLBACK_INFO_INIT;
  on_adapter.mode = WGPUCallbackMode_AllowProcessEvents;
  on_adapter.userdata1 = &g;
  on_adapter.callback = [](WGPURequestAdapterStatus, WGPUAdapter adapter, WGPUStringView message, void* to, void*) {
    static_cast<Gpu*>(to)->adapter = adapter;
    if (!adapter) static_cast<Gpu*>(to)->why = "there is no adapter: " + text(message);
  };
  g.api.InstanceRequestAdapter(g.instance, &options, on_adapter);
  g.api.InstanceProcessEvents(g.instance);
  if (!g.adapter) return false;

  g.api.AdapterGetLimits(g.adapter, &g.limits);
  std::vector<WGPUFeatureName> features;
  OrderedJson names = OrderedJson::array();
  for (const auto& [feature, name] : kFeatures) {
    if (!g.api.AdapterHasFeature(g.adapter, feature)) continue;
    features.push_back(feature);
    names.push_back(name);
  }
  WGPUDeviceDescriptor wanted = WGPU_DEVICE_DESCRIPTOR_INIT;
  wanted.requiredFeatureCount = features.size();
  wanted.requiredFeatures = features.data();
  wanted.requiredLimits = &g.limits;
  wanted.deviceLostCallbackInfo.mode = WGPUCallbackMode_AllowSpontaneous;
  wanted.deviceLostCallbackInfo.callback = [](const WGPUDevice*, WGPUDeviceLostReason, WGPUStringView message, void*, void*) {
    lose(message);
  };
  wanted.uncapturedErrorCallbackInfo.callback = [](const WGPUDevice*, WGPUErrorType type, WGPUStringView message, void*, void*) {
    keep_error(type == WGPUErrorType_OutOfMemory ? "memory" : "invalid", message);
  };
  WGPURequestDeviceCallbackInfo on_device = WGPU_REQUEST_DEVICE_CALLBACK_INFO_INIT;
  on_device.mode = WGPUCallbackMode_AllowProcessEvents;
  on_device.userdata1 = &g;
  on_device.callback = [](WGPURequestDeviceStatus, WGPUDevice device, WGPUStringView message, void* to, void*) {
    static_cast<Gpu*>(to)->device = device;
    if (!device) static_cast<Gpu*>(to)->why = "the adapter gives no device: " + text(message);
  };
  g.api.AdapterRequestDevice(g.adapter, &wanted, on_device);
  g.api.InstanceProcessEvents(g.instance);
  if (!g.device) return false;
  g.queue = g.api.DeviceGetQueue(g.device);

  WGPUAdapterInfo about = WGPU_ADAPTER_INFO_INIT;
  g.api.AdapterGetInfo(g.adapter, &about);
  OrderedJson info;
  info["adapter"] = text(about.device);
  info["vendor"] = text(about.vendor);
  info["architecture"] = text(about.architecture);
  info["driver"] = text(about.description);
  if (about.adapterType == WGPUAdapterType_CPU) info["software"] = true;
  info["features"] = names;
  info["packed_dot"] = true;  // naga translates it everywhere
  info["limits"] = {{"buffer", g.limits.maxBufferSize},
                    {"binding", g.limits.maxStorageBufferBindingSize},
                    {"workgroup", g.limits.maxComputeWorkgroupStorageSize},
                    {"groups", g.limits.maxComputeWorkgroupsPerDimension}};
  g.info = json_text(info);
  g.api.AdapterInfoFreeMembers(about);
  ++g.opening;
  return true;
}

void poll(Gpu& g, bool wait) {
  if (!g.device) return;
  if (g.api.DevicePoll) g.api.DevicePoll(g.device, wait, nullptr);
  g.api.InstanceProcessEvents(g.instance);
}

template <class T>
GpuId put(std::vector<T>& list, std::vector<GpuId>* free, T object) {
  if (!object) return 0;
  if (free && !free->empty()) {
    const GpuId id = free->back();
    free->pop_back();
    list[id] = object;
    return id;
  }
  list.push_back(object);
  return GpuId(list.size() - 1);
}

uint32_t give(const std::string& from, char* to, uint32_t n) {
  std::copy_n(from.begin(), std::min<size_t>(n, from.size()), to);
  return uint32_t(from.size());
}

WGPUBuffer make_buffer(Gpu& g, uint64_t n_bytes, WGPUBufferUsage usage) {
  WGPUBufferDescriptor wanted = WGPU_BUFFER_DESCRIPTOR_INIT;
  wanted.size = (n_bytes + 3) / 4 * 4;
  wanted.usage = usage;
  return g.api.DeviceCreateBuffer(g.device, &wanted);
}

/// The reads of a list that nobody runs.
void fail_reads(Gpu& g, const uint32_t* words, uint32_t n_words) {
  for (const uint32_t *w = words, *end = words + n_words; w < end; w += 6) {
    if (GpuCommand(*w) != GpuCommand::kRead) continue;
    g.reads[w[4]].state = Read::State::kFailed;
    --w;  // a read is a word shorter
  }
}

}  // namespace

extern "C" {

uint32_t gpu_open(void) {
  Gpu& g = gpu();
  if (g.device && !g.is_lost) return g.opening;
  return open(g) ? g.opening : 0;
}

uint32_t gpu_info(char* to, uint32_t n) {
  const Gpu& g = gpu();
  return give(g.device ? g.info : json_text(OrderedJson{{"why", g.why}}), to, n);
}

GpuId gpu_buffer(double n_bytes, uint32_t use) {
  Gpu& g = gpu();
  if (n_bytes > double(g.limits.maxBufferSize)) return 0;
  const WGPUBufferUsage kind = use == uint32_t(GpuUse::kUniform) ? WGPUBufferUsage_Uniform : WGPUBufferUsage_Storage;
  return put(g.buffers, &g.free_buffers, make_buffer(g, uint64_t(n_bytes), kind | WGPUBufferUsage_CopyDst | WGPUBufferUsage_CopySrc));
}

void gpu_buffer_free(GpuId buffer) {
  Gpu& g = gpu();
  if (!buffer) return;
  g.api.BufferDestroy(g.buffers[buffer]);
  g.api.BufferRelease(g.buffers[buffer]);
  g.buffers[buffer] = nullptr;
  g.free_buffers.push_back(buffer);
}

void gpu_write(GpuId buffer, double offset, const void* from, uint32_t n) {
  Gpu& g = gpu();
  if (g.is_lost) return;
  // The library keeps a copy of what is written until a submission that comes after it has completed.
  if (g.n_writing + n > kMostBringing) {
    g.api.QueueSubmit(g.queue, 0, nullptr);
    poll(g, true);
    g.n_writing = 0;
  }
  g.n_writing += n;
  g.api.QueueWriteBuffer(g.queue, g.buffers[buffer], uint64_t(offset), from, n);
}
double gpu_writing(void) { return 0; }

void gpu_prepare(const char*, uint32_t) {}

GpuId gpu_pipeline(const char* wgsl, uint32_t n) {
  Gpu& g = gpu();
  WGPUShaderSourceWGSL source = WGPU_SHADER_SOURCE_WGSL_INIT;
  source.code = view(wgsl, n);
  WGPUShaderModuleDescriptor module = WGPU_SHADER_MODULE_DESCRIPTOR_INIT;
  module.nextInChain = &source.chain;
  WGPUComputePipelineDescriptor wanted = WGPU_COMPUTE_PIPELINE_DESCRIPTOR_INIT;
  wanted.compute.module = g.api.DeviceCreateShaderModule(g.device, &module);
  wanted.compute.entryPoint = view("main", 4);
  const WGPUComputePipeline made = g.api.DeviceCreateComputePipeline(g.device, &wanted);
  g.api.ShaderModuleRelease(wanted.compute.module);
  return put<WGPUComputePipeline>(g.pipelines, nullptr, made);
}

GpuId gpu_bind(GpuId pipeline, const GpuBinding* bindings, uint32_t n) {
  Gpu& g = gpu();
  if (g.is_lost) return 0;
  std::vector<WGPUBindGroupEntry> entries(n, WGPUBindGroupEntry(WGPU_BIND_GROUP_ENTRY_INIT));
  for (uint32_t i = 0; i < n; ++i) {
    entries[i].binding = i;
    entries[i].buffer = g.buffers[bindings[i].buffer];
    entries[i].offset = bindings[i].offset;
    entries[i].size = bindings[i].n_bytes ? bindings[i].n_bytes : WGPU_WHOLE_SIZE;
  }
  WGPUBindGroupDescriptor wanted = WGPU_BIND_GROUP_DESCRIPTOR_INIT;
  wanted.layout = g.api.ComputePipelineGetBindGroupLayout(g.pipelines[pipeline], 0);
  wanted.entryCount = n;
  wanted.entries = entries.data();
  const WGPUBindGroup made = g.api.DeviceCreateBindGroup(g.device, &wanted);
  g.api.BindGroupLayoutRelease(wanted.layout);
  return put(g.binds, &g.free_binds, made);
}

void gpu_bind_free(GpuId bind) {
  Gpu& g = gpu();
  if (!bind) return;
  g.api.BindGroupRelease(g.binds[bind]);
  g.binds[bind] = nullptr;
  g.free_binds.push_back(bind);
}

void gpu_submit(const uint32_t* words, uint32_t n_words) {
  Gpu& g = gpu();
  // A submit to a device that is gone ends the process (wgpu-native's QueueSubmit panics); one whose loss the submit itself finds still
  // does.
  if (g.is_lost) return fail_reads(g, words, n_words);
  const WGPUCommandEncoder encoder = g.api.DeviceCreateCommandEncoder(g.device, nullptr);
  WGPUComputePassEncoder pass = nullptr;
  auto end_pass = [&] {
    if (!pass) return;
    g.api.ComputePassEncoderEnd(pass);
    g.api.ComputePassEncoderRelease(pass);
    pass = nullptr;
  };
  std::vector<uint32_t> read_slots;
  for (const uint32_t *w = words, *end = words + n_words; w < end;) {
    switch (GpuCommand(*w++)) {
      case GpuCommand::kDispatch:
        if (!pass) pass = g.api.CommandEncoderBeginComputePass(encoder, nullptr);
        g.api.ComputePassEncoderSetPipeline(pass, g.pipelines[w[0]]);
        g.api.ComputePassEncoderSetBindGroup(pass, 0, g.binds[w[1]], 0, nullptr);
        g.api.ComputePassEncoderDispatchWorkgroups(pass, w[2], w[3], w[4]);
        w += 5;
        break;
      case GpuCommand::kCopy:
        end_pass();
        g.api.CommandEncoderCopyBufferToBuffer(encoder, g.buffers[w[0]], w[1], g.buffers[w[2]], w[3], w[4]);
        w += 5;
        break;
      case GpuCommand::kRead: {
        end_pass();
        Read& read = g.reads[w[3]];
        if (read.capacity < w[2]) {
          if (read.buffer) g.api.BufferRelease(read.buffer);
          read.buffer = make_buffer(g, w[2], WGPUBufferUsage_MapRead | WGPUBufferUsage_CopyDst);
          read.capacity = w[2];
        }
        read.n_bytes = w[2];
        read.state = Read::State::kPending;
        g.api.CommandEncoderCopyBufferToBuffer(encoder, g.buffers[w[0]], w[1], read.buffer, 0, w[2]);
        read_slots.push_back(w[3]);
        w += 4;
        break;
      }
    }
  }
  end_pass();
  const WGPUCommandBuffer commands = g.api.CommandEncoderFinish(encoder, nullptr);
  g.api.CommandEncoderRelease(encoder);
  g.api.QueueSubmit(g.queue, 1, &commands);
  g.api.CommandBufferRelease(commands);
  for (uint32_t slot : read_slots) {
    WGPUBufferMapCallbackInfo on_map = WGPU_BUFFER_MAP_CALLBACK_INFO_INIT;
    on_map.mode = WGPUCallbackMode_AllowProcessEvents;
    on_map.userdata1 = &g.reads[slot];
    on_map.callback = [](WGPUMapAsyncStatus status, WGPUStringView message, void* to, void*) {
      static_cast<Read*>(to)->state = status == WGPUMapAsyncStatus_Success ? Read::State::kCome : Read::State::kFailed;
      if (status != WGPUMapAsyncStatus_Success) keep_error("invalid", message);
    };
    g.api.BufferMapAsync(g.reads[slot].buffer, WGPUMapMode_Read, 0, g.reads[slot].n_bytes, on_map);
  }
}

int32_t gpu_take(uint32_t slot, void* to, uint32_t n) {
  Gpu& g = gpu();
  Read& read = g.reads[slot];
  if (read.state == Read::State::kPending) poll(g, false);
  if (read.state == Read::State::kPending && g.is_lost) read.state = Read::State::kFailed;
  if (read.state == Read::State::kPending) return 0;
  const bool has_come = read.state == Read::State::kCome;
  read.state = Read::State::kFree;
  if (!has_come) return -1;
  std::memcpy(to, g.api.BufferGetConstMappedRange(read.buffer, 0, n), n);
  g.api.BufferUnmap(read.buffer);
  return 1;
}

void gpu_wait(void) { poll(gpu(), true); }

uint32_t gpu_error(char* to, uint32_t n) {
  Gpu& g = gpu();
  if (g.error.empty()) poll(g, false);
  const uint32_t length = give(g.error, to, n);
  g.error.clear();
  return length;
}
}

}  // namespace sb

#else  // built without webgpu.h: there is never a GPU, and nothing else is called

namespace sb {
extern "C" {
uint32_t gpu_open(void) { return 0; }
uint32_t gpu_info(char* to, uint32_t n) {
  const std::string info = json_text(OrderedJson{{"why", "this build was made without webgpu.h"}});
  std::copy_n(info.begin(), std::min<size_t>(n, info.size()), to);
  return uint32_t(info.size());
}
GpuId gpu_buffer(double, uint32_t) { return 0; }
void gpu_buffer_free(GpuId) {}
void gpu_write(GpuId, double, const void*, uint32_t) {}
double gpu_writing(void) { return 0; }
void gpu_prepare(const char*, uint32_t) {}
GpuId gpu_pipeline(const char*, uint32_t) { return 0; }
GpuId gpu_bind(GpuId, const GpuBinding*, uint32_t) { return 0; }
void gpu_bind_free(GpuId) {}
void gpu_submit(const uint32_t*, uint32_t) {}
int32_t gpu_take(uint32_t, void*, uint32_t) { return -1; }
void gpu_wait(void) {}
uint32_t gpu_error(char*, uint32_t) { return 0; }
}
}  // namespace sb
#endif
#endif
