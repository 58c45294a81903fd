// Threads for a device: one pool an engine, the caller is thread 0. Natively the workers are std::threads; in WebAssembly builds
// with SB_THREADS they are web workers that the host starts and that come in through sb_worker_run; elsewhere the pool has one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>
#include <vector>

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
  /// Waits some microseconds at most, awake: whether it differs then.
  bool differs_soon(uint32_t old) const;

 private:
  bool differs_within(uint32_t old, int n_spins) const;

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

  /// Calls fn(0) here and fn(1) … fn(size() - 1) on the workers, all at once; returns when every call has returned. A call that no worker
  /// has taken when fn(0) returns is made here: nobody waits for a thread that has nothing to do. What was written before is visible to
  /// the calls, and what they wrote is visible after. Not to be called from within a call, nor by two threads.
  template <class Fn>
  void run(Fn&& fn) {
    using Plain = std::remove_reference_t<Fn>;
    run_erased([](void* context, int call) { (*static_cast<Plain*>(context))(call); }, const_cast<void*>(static_cast<const void*>(&fn)));
  }

  /// Calls fn() on a worker while the caller goes on; in a pool of one, here and now. What was written before is visible to it. `fn` lives
  /// until finish(), and a run() finishes it first. One at a time.
  template <class Fn>
  void begin(Fn& fn) {
    begin_erased([](void* context, int) { (*static_cast<Fn*>(context))(); }, &fn, 1);
  }
  /// Returns when what was begun has returned, if anything; what it wrote is visible then. Calls it where no worker has come to it.
  void finish();

  struct State;

 private:
  using Call = void (*)(void* context, int call);
  void run_erased(Call call, void* context);
  void begin_erased(Call call, void* context, int n_calls);

  int n_threads_ = 1;
  State* state_ = nullptr;  // null while there is only the caller
};

/// The tasks of a run() in stages: the next begins when all tasks of one are done. Each thread has tasks of its own, so that what they read
/// stays near its core; one that has waited for some microseconds takes others' that have not been begun, so that a thread which the system
/// has set aside holds up only what it is at. (Helping at once cost 16 threads a fifth of their rate: everybody read everybody's counter.)
class Stages {
 public:
  explicit Stages(int n_threads) : taken_(size_t(n_threads)) {}

  /// In one thread, before the run().
  void begin() { first_ = over_.load(); }

  /// In each call of the run(), `thread` its number: calls task(stage, i, owner) for all stages, every i below n_tasks(stage) and every
  /// owner below n_threads, each once in one of the threads. Returns when no stage is left. What a stage wrote is visible to the next.
  template <class Size, class Task>
  void work(int thread, uint32_t n_stages, Size&& n_tasks, Task&& task) {
    const uint32_t n_threads = uint32_t(taken_.size());
    for (;;) {
      const uint32_t now = over_.load(), stage = now - first_;
      if (stage == n_stages) return;
      const uint32_t n = n_tasks(stage);
      auto end_stage = [&](uint32_t n_did) {  // whether these were the last of it
        if (n_did == 0 || n_done_.fetch_add(n_did, std::memory_order_acq_rel) + n_did < n * n_threads) return false;
        n_done_.store(0, std::memory_order_relaxed);
        over_.advance();
        return true;
      };
      auto do_all = [&](uint32_t owner) {
        uint32_t n_did = 0;
        for (uint32_t i; (i = take(owner, now, n)) < n; ++n_did) task(stage, i, owner);
        return n_did;
      };
      if (end_stage(do_all(uint32_t(thread))) || over_.differs_soon(now)) continue;
      uint32_t n_helped = 0;
      for (uint32_t k = 1; k < n_threads; ++k) n_helped += do_all((uint32_t(thread) + k) % n_threads);
      if (!end_stage(n_helped)) over_.wait_while(now);
    }
  }

 private:
  struct alignas(64) Taken {
    std::atomic<uint64_t> of{0};  // a stage, counted as over_ does, << 32 | how many of its tasks
  };

  /// A task of `owner` that nobody has taken, or n.
  uint32_t take(uint32_t owner, uint32_t now, uint32_t n) {
    std::atomic<uint64_t>& taken = taken_[owner].of;
    for (uint64_t old = taken.load(std::memory_order_acquire);;) {
      const uint32_t stage = uint32_t(old >> 32), i = stage == now ? uint32_t(old) : 0;
      if (i == n || int32_t(stage - now) > 0) return n;  // all of them; or this stage is over, and the thread has not seen it yet
      if (taken.compare_exchange_weak(old, uint64_t(now) << 32 | (i + 1), std::memory_order_acq_rel)) return i;
    }
  }

  std::vector<Taken> taken_;                     // by owner
  uint32_t first_ = 0;                           // over_ when the run began
  alignas(64) std::atomic<uint32_t> n_done_{0};  // tasks of the stage
  alignas(64) WaitWord over_;                    // stages, of all runs
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
