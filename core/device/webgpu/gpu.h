// The GPU as the core sees it: a dozen functions over numbered objects. In the page and in Node they are imports that web/engine/src/gpu.ts
// serves; natively gpu_native.cc serves them with a webgpu.h library that it loads at run time. A process has one GPU open at most.
#pragma once

#include <cstdint>

#if defined(__wasm__)
#define SB_GPU_IMPORT(name) __attribute__((import_module("sb"), import_name(#name)))
#else
#define SB_GPU_IMPORT(name)
#endif

namespace sb {

/// A buffer, pipeline or bind group; 0 is none.
using GpuId = uint32_t;

/// Bytes [offset, offset + n_bytes) of a buffer, as a binding has them.
struct GpuBinding {
  GpuId buffer;
  uint32_t offset;   // bytes, a multiple of 256
  uint32_t n_bytes;  // a multiple of 4; 0: to the buffer's end
};

enum class GpuUse : uint32_t { kStorage = 0, kUniform = 1 };

/// The words of a command list: an opcode, then its numbers.
enum class GpuCommand : uint32_t {
  kDispatch = 1,  // pipeline, bind group, x, y, z
  kCopy = 2,      // source, its offset, target, its offset, bytes
  kRead = 3,      // buffer, offset, bytes, slot: what gpu_take(slot) will give
};

inline constexpr uint32_t kGpuSlots = 8;  // reads that can be under way at a time
inline constexpr uint32_t kGpuOpening = 0xffffffff;

extern "C" {
/// Opens the GPU unless it is open; a page opens its own the first time, before it asks. Also anew, when it was lost: the number of the
/// opening, from 1; objects of an earlier one can only be freed. 0: there is none, gpu_info says why, and the next call tries again.
/// kGpuOpening, in a page: it is under way.
uint32_t gpu_open(void) SB_GPU_IMPORT(gpu_open);
/// {"adapter", "vendor", "architecture", "driver", "backend", "software"?, "features": […], "packed_dot", "limits": {"buffer", "binding",
/// "workgroup", "groups"}} as JSON text, at most n bytes of it; returns its length. Without a GPU: {"why": …}.
uint32_t gpu_info(char* to, uint32_t n) SB_GPU_IMPORT(gpu_info);
/// 0 where it is larger than the device allows. Its bytes are zero. What the driver refuses later is a gpu_error.
GpuId gpu_buffer(double n_bytes, uint32_t use) SB_GPU_IMPORT(gpu_buffer);
void gpu_buffer_free(GpuId buffer) SB_GPU_IMPORT(gpu_buffer_free);
/// Copies n bytes (a multiple of 4) before what is submitted next; `from` may change afterwards.
/// Natively it waits where more than kMostBringing bytes would be on their way.
void gpu_write(GpuId buffer, double offset, const void* from, uint32_t n) SB_GPU_IMPORT(gpu_write);
/// Written bytes that the GPU has not taken yet: copies of them lie somewhere on the way. 0 natively. Whoever writes much asks, and so lets
/// what was written since the last question go; a page's host calls again after written().
double gpu_writing(void) SB_GPU_IMPORT(gpu_writing);
/// Begins to compile what gpu_pipeline() will be asked for, beside other work; natively it does nothing.
void gpu_prepare(const char* wgsl, uint32_t n) SB_GPU_IMPORT(gpu_prepare);
/// A compute pipeline of WGSL text whose entry is `main` and whose first line, a comment, names it, with one bind group of automatic
/// layout.
GpuId gpu_pipeline(const char* wgsl, uint32_t n) SB_GPU_IMPORT(gpu_pipeline);
GpuId gpu_bind(GpuId pipeline, const GpuBinding* bindings, uint32_t n) SB_GPU_IMPORT(gpu_bind);
void gpu_bind_free(GpuId bind) SB_GPU_IMPORT(gpu_bind_free);
/// Encodes the list in order into one command buffer and submits it. Dispatches see what earlier ones wrote.
void gpu_submit(const uint32_t* words, uint32_t n_words) SB_GPU_IMPORT(gpu_submit);
/// 1: the read into `slot` has come, and its first n bytes are at `to`; 0: not yet; −1: it failed (gpu_error says why). Frees the slot.
int32_t gpu_take(uint32_t slot, void* to, uint32_t n) SB_GPU_IMPORT(gpu_take);
/// Natively waits until something submitted has completed; in a page there is no waiting, and nothing happens.
void gpu_wait(void) SB_GPU_IMPORT(gpu_wait);
/// The first error since the last question, at most n bytes of it: "lost: …", "memory: …" or "invalid: …". Returns its length, 0: none.
uint32_t gpu_error(char* to, uint32_t n) SB_GPU_IMPORT(gpu_error);
}

}  // namespace sb
