// Threads for a device: one pool an engine, the caller is thread 0. Natively the workers are std::threads; in WebAssembly builds
// with SB_THREADS they are web workers that the host starts and that come in through sb_worker_run; elsewhere the pool has one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace sb {

/// A number that threads wait on: they look for a while without sleeping, because the next piece of work is usually microseconds
/// away, and then sleep, because a thread that was preempted must not be waited for at full burn.
class WaitWord {
 public:
  uint32_t load() const { return value_.load(std::memory_order_acquire); }
  /// Adds one and wakes whoever sleeps on it. Everything written before is visible to those who see the new value.
  void advance();
  /// Returns once the value differs from `old`.
  void wait_while(uint32_t old);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> n_sleepers_{0};
};

class ThreadPool {
 public:
  /// Up to `n_threads` threads (at least 1, the caller counted). See size() for how many there are.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  /// Calls fn(0) here and fn(1) … fn(size() - 1) on the workers, all at once; returns when every call has returned. What was written
  /// before is visible to the calls, and what they wrote is visible after. Not to be called from within a call, nor by two threads.
  template <class Fn>
  void run(Fn&& fn) {
    using Plain = std::remove_reference_t<Fn>;
    run_erased([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
               const_cast<void*>(static_cast<const void*>(&fn)));
  }

  /// Calls fn() on a worker while the caller goes on; in a pool of one, here and now. What was written before is visible to it. `fn` lives
  /// until finish(), and a run() finishes it first. One at a time.
  template <class Fn>
  void begin(Fn& fn) {
    begin_erased([](void* context, int thread) { thread == 1 ? (*static_cast<Fn*>(context))() : void(); }, &fn);
  }
  /// Returns when what was begun has returned, if anything; what it wrote is visible then.
  void finish();

  struct State;

 private:
  using Call = void (*)(void* context, int thread);
  void run_erased(Call call, void* context);
  void begin_erased(Call call, void* context);

  int n_threads_ = 1;
  State* state_ = nullptr;         // null while there is only the caller
  std::optional<uint32_t> begun_;  // state_->done before what was begun
};

/// Meeting point of all threads inside one run(): wait() returns in every thread once `n_threads` have called it. Reusable at once.
class SpinBarrier {
 public:
  explicit SpinBarrier(int n_threads) : n_threads_(uint32_t(n_threads)) {}
  void wait();

 private:
  uint32_t n_threads_;
  alignas(64) std::atomic<uint32_t> n_arrived_{0};
  alignas(64) WaitWord phase_;
};

/// A WebAssembly worker's whole life (sb_worker_run): serves the pool until it is destroyed. Does nothing in builds without threads.
void thread_pool_worker(int index);

}  // namespace sb
