// Sleeping on a number in shared memory: the two WebAssembly instructions, each alone in a function.
// V8 11.3 (Node 20), baseline compiler: after memory.atomic.notify a local that was kept in a register holds the notify's count instead
// (found when every pool thread took itself for number 0). In a function of their own nothing is live across them; the call costs less
// than the wake-up. Delete with Node 20.
#pragma once

#if defined(__wasm__) && defined(SB_THREADS)

#include <cstdint>

namespace sb {

[[gnu::noinline]] inline void wasm_wait(void* word, uint32_t old, int64_t timeout_ns = -1) {
  __builtin_wasm_memory_atomic_wait32(static_cast<int*>(word), int(old), timeout_ns);
}
[[gnu::noinline]] inline void wasm_notify(void* word, uint32_t n_threads) {
  __builtin_wasm_memory_atomic_notify(static_cast<int*>(word), n_threads);
}

}  // namespace sb

#endif
