#include "base/thread_pool.h"

#include <algorithm>

#include "base/host.h"
#include "base/wasm_wait.h"

#ifndef __wasm__
#include <thread>
#include <vector>
#endif
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace sb {
namespace {

// About 20 to 50 µs on today's cores: longer than the gap between two stages of a step, shorter than a scheduler's time slice.
#if defined(__x86_64__)
constexpr int kSpins = 1000;  // a pause takes 40 to 140 cycles
inline void pause_core() { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
constexpr int kSpins = 4000;
inline void pause_core() { __asm__ volatile("isb"); }
#else
constexpr int kSpins = 2000;
// WebAssembly has no pause. Divisions that wait for each other leave the core to its other thread in the same way.
inline void pause_core() {
  static volatile uint64_t one = 1;
  uint64_t chain = 0x9e3779b97f4a7c15;
  const uint64_t by = one;
  for (int i = 0; i < 4; ++i) chain = chain / by | 1;
  static_cast<void>(*const_cast<volatile uint64_t*>(&chain));
}
#endif

#if defined(__wasm__) && defined(SB_THREADS)
void park(std::atomic<uint32_t>& word, uint32_t old, int64_t timeout_ns = -1) { wasm_wait(&word, old, timeout_ns); }
void unpark_all(std::atomic<uint32_t>& word) { wasm_notify(&word, ~0u); }
#elif defined(__wasm__)
void park(std::atomic<uint32_t>&, uint32_t) { host_fatal("a build without threads waits for one"); }
void unpark_all(std::atomic<uint32_t>&) {}
#elif defined(__linux__)
// Not std::atomic's: libstdc++'s gives the core away (sched_yield) before it sleeps, and beside a busy process that costs a time slice.
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);
void park(std::atomic<uint32_t>& word, uint32_t old) { syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0); }
void unpark_all(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
void park(std::atomic<uint32_t>& word, uint32_t old) { word.wait(old, std::memory_order_acquire); }
void unpark_all(std::atomic<uint32_t>& word) { word.notify_all(); }
#endif

}  // namespace

void WaitWord::advance() {
  // Both sides are sequentially consistent: either this thread sees the sleeper, or the sleeper sees the new value before it sleeps.
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (n_sleepers_.load(std::memory_order_seq_cst) != 0) unpark_all(value_);
}

bool WaitWord::differs_within(uint32_t old, int n_spins) const {
  for (int i = 0; i < n_spins; ++i) {
    if (value_.load(std::memory_order_acquire) != old) return true;
    pause_core();
  }
  return false;
}

bool WaitWord::differs_soon(uint32_t old) const { return differs_within(old, kSpins / 16); }

void WaitWord::wait_while(uint32_t old) {
  if (differs_within(old, kSpins)) return;
  n_sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == old) park(value_, old);
  n_sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void SpinBarrier::wait() {
  // Nobody can pass the next phase without this thread, so this reads the phase it arrives in.
  uint32_t phase = phase_.load();
  if (n_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) {
    n_arrived_.store(0, std::memory_order_relaxed);  // before the phase is over, so before anyone can arrive again
    phase_.advance();
  } else {
    phase_.wait_while(phase);
  }
}

struct ThreadPool::State {
  Call call = nullptr;
  void* context = nullptr;
  std::atomic<bool> is_over{false};
  std::atomic<int> n_threads{1};
  alignas(64) WaitWord job;                        // advances when there is something to do
  alignas(64) std::atomic<int> n_open{0};          // calls that nobody has taken: the numbers 1 … n_open
  alignas(64) std::atomic<int> n_owed{0};          // calls from number 1 on that have not returned
  alignas(64) WaitWord done;                       // advances when the last of them has
  alignas(64) std::atomic<uint32_t> n_arrived{0};  // WebAssembly: workers that have come in
#ifndef __wasm__
  std::vector<std::thread> threads;
#endif

  // `seen` is the job counter from before the pool could give this worker its first job.
  void serve(int thread, uint32_t seen) {
    for (;;) {
      job.wait_while(seen);
      seen = job.load();
      if (is_over.load(std::memory_order_acquire)) return;
      if (thread >= n_threads.load(std::memory_order_relaxed)) continue;  // came too late to be counted in
      take_all();
    }
  }

  // Makes the calls that nobody else takes. `call` and `context` stay what they are while a call that was taken is owed.
  void take_all() {
    for (int n = n_open.load(std::memory_order_acquire); n > 0;) {
      if (!n_open.compare_exchange_weak(n, n - 1, std::memory_order_acq_rel)) continue;
      call(context, n);
      if (n_owed.fetch_sub(1, std::memory_order_acq_rel) == 1) done.advance();
      n = n_open.load(std::memory_order_acquire);
    }
  }
};

void ThreadPool::run_erased(Call call, void* context) {
  if (n_threads_ > 1) begin_erased(call, context, n_threads_ - 1);
  call(context, 0);
  finish();
}

void ThreadPool::begin_erased(Call call, void* context, int n_calls) {
  if (n_threads_ == 1) return call(context, 1);
  finish();
  state_->call = call;
  state_->context = context;
  state_->n_owed.store(n_calls, std::memory_order_relaxed);
  state_->n_open.store(n_calls, std::memory_order_release);
  state_->job.advance();
}

void ThreadPool::finish() {
  if (!state_) return;
  state_->take_all();
  for (;;) {
    const uint32_t done = state_->done.load();
    if (state_->n_owed.load(std::memory_order_acquire) == 0) return;
    state_->done.wait_while(done);
  }
}

#ifndef __wasm__

ThreadPool::ThreadPool(int n_threads) : n_threads_(std::max(1, n_threads)) {
  if (n_threads_ == 1) return;
  state_ = new State;
  state_->n_threads = n_threads_;
  for (int i = 1; i < n_threads_; ++i) state_->threads.emplace_back([state = state_, i] { state->serve(i, 0); });
}

ThreadPool::~ThreadPool() {
  if (!state_) return;
  finish();
  state_->is_over.store(true, std::memory_order_release);
  state_->job.advance();
  for (std::thread& thread : state_->threads) thread.join();
  delete state_;
}

void thread_pool_worker(int) {}

#elif defined(SB_THREADS)

namespace {
// The host's workers belong to the module, not to a pool: they come in before the engine is created, or while it is.
constinit ThreadPool::State g_state;
constinit std::atomic<bool> g_is_taken{false};
constexpr double kArrivalMs = 5000;  // a worker that has not come by then has died; the engine goes on without it
}  // namespace

ThreadPool::ThreadPool(int n_threads) {
  if (n_threads <= 1 || g_is_taken.exchange(true)) return;
  double deadline = host_now_ms() + kArrivalMs;
  uint32_t n_arrived;
  while ((n_arrived = g_state.n_arrived.load()) < uint32_t(n_threads - 1) && host_now_ms() < deadline) {
    park(g_state.n_arrived, n_arrived, 100'000'000);
  }
  n_threads_ = 1 + int(std::min(n_arrived, uint32_t(n_threads - 1)));
  g_state.is_over = false;
  g_state.n_threads = n_threads_;
  state_ = &g_state;
}

ThreadPool::~ThreadPool() {
  if (!state_) return;
  finish();
  g_state.is_over.store(true, std::memory_order_release);
  g_state.job.advance();
  // A pool made next must not count workers that are on their way out.
  double deadline = host_now_ms() + kArrivalMs;
  uint32_t n_left;
  while ((n_left = g_state.n_arrived.load()) != 0 && host_now_ms() < deadline) park(g_state.n_arrived, n_left, 100'000'000);
  g_is_taken = false;
}

void thread_pool_worker(int) {
  // Numbered as they come, so that one which never comes leaves no gap.
  uint32_t seen = g_state.job.load();
  int thread = int(g_state.n_arrived.fetch_add(1)) + 1;
  unpark_all(g_state.n_arrived);
  g_state.serve(thread, seen);
  g_state.n_arrived.fetch_sub(1);
  unpark_all(g_state.n_arrived);
}

#else

ThreadPool::ThreadPool(int) {}
ThreadPool::~ThreadPool() = default;
void thread_pool_worker(int) {}

#endif

}  // namespace sb
