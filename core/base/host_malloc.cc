#include "base/host_malloc.h"

#include <cstdlib>

#include "base/wasm_wait.h"

#if defined(__APPLE__)
#include <malloc/malloc.h>
#elif !defined(_WIN32)
#include <malloc.h>
#endif

#if defined(__wasm__) && defined(SB_THREADS)
#include <atomic>
#endif

namespace sb {
namespace {

#if defined(__wasm__) && defined(SB_THREADS)
// 0 free, 1 taken, 2 taken and somebody sleeps (Drepper, "Futexes Are Tricky", mutex 2).
constinit std::atomic<int> g_lock{0};
struct Locked {
  Locked() {
    int free = 0;
    if (g_lock.compare_exchange_strong(free, 1, std::memory_order_acquire)) return;
    while (g_lock.exchange(2, std::memory_order_acquire) != 0) { wasm_wait(&g_lock, 2); }
  }
  ~Locked() {
    if (g_lock.exchange(0, std::memory_order_release) == 2) wasm_notify(&g_lock, 1);
  }
};
#else
struct Locked {
  Locked() {}  // libc's own lock, or a single thread
};
#endif

}  // namespace

void* host_malloc(size_t alignment, size_t n_bytes) {
  Locked locked;
  return alignment <= alignof(max_align_t) ? std::malloc(n_bytes) : std::aligned_alloc(alignment, n_bytes);
}

void host_free(void* data) {
  Locked locked;
  std::free(data);
}

size_t host_malloc_size(void* data) {
#if defined(__APPLE__)
  return malloc_size(data);
#else
  return malloc_usable_size(data);  // reads the block's own header only
#endif
}

}  // namespace sb
