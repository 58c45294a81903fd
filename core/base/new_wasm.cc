// operator new and delete of the WebAssembly builds: every C++ object is in the books under Tag::kHost, and the build without
// exceptions has an answer for the last byte. Natively the standard ones stay, so that sanitizers and embedding programs keep theirs.
#ifdef __wasm__

#include <new>

#include "base/host.h"
#include "base/host_malloc.h"
#include "base/memory.h"

namespace {

void* take(size_t n_bytes, size_t alignment) {
  size_t rounded = (n_bytes + alignment - 1) / alignment * alignment;
  void* data = rounded < n_bytes ? nullptr : sb::host_malloc(alignment, rounded ? rounded : alignment);
  if (!data) sb::host_fatal("out of memory: the WebAssembly heap is full");  // the page sees kWorkerFailed with this text
  sb::memory_take(sb::Tag::kHost, sb::host_malloc_size(data));
  return data;
}

void give(void* data) {
  if (!data) return;
  sb::memory_give(sb::Tag::kHost, sb::host_malloc_size(data));
  sb::host_free(data);
}

}  // namespace

// The array, sized and nothrow forms of libc++ call these.
void* operator new(size_t n_bytes) { return take(n_bytes, alignof(max_align_t)); }
void* operator new(size_t n_bytes, std::align_val_t alignment) { return take(n_bytes, size_t(alignment)); }
void operator delete(void* data) noexcept { give(data); }
void operator delete(void* data, std::align_val_t) noexcept { give(data); }
void operator delete(void* data, size_t) noexcept { give(data); }
void operator delete(void* data, size_t, std::align_val_t) noexcept { give(data); }

#endif
