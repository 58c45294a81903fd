// The C allocator, for base only: everybody else takes a Block or uses operator new, so that the bytes are in the books. In the
// WebAssembly build with threads it is under a lock, because wasi-libc's malloc is built without atomics.
#pragma once

#include <cstddef>

namespace sb {

/// Null when there is none. `alignment` is a power of two; `n_bytes` a multiple of it.
void* host_malloc(size_t alignment, size_t n_bytes);
void host_free(void* data);
/// What the allocator really set aside for `data`: bytes, at least as many as were asked for.
size_t host_malloc_size(void* data);

}  // namespace sb
