#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace sb {
namespace {

TEST(ThreadPool, OneThreadRunsInTheCaller) {
  ThreadPool pool(1);
  std::thread::id ran;
  pool.run([&](int) { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(ThreadPool, FewerThanOneIsOne) {
  EXPECT_EQ(ThreadPool(0).size(), 1);
  EXPECT_EQ(ThreadPool(-3).size(), 1);
}

TEST(ThreadPool, EveryThreadRunsOnceAJob) {
  for (int n : {1, 2, 3, 8}) {
    ThreadPool pool(n);
    std::vector<int> calls(size_t(n), 0);  // plain ints: each thread has its own, run() orders them against the caller
    for (int job = 0; job < 2000; ++job) pool.run([&](int thread) { ++calls[size_t(thread)]; });
    EXPECT_EQ(calls, std::vector<int>(size_t(n), 2000));
  }
}

TEST(ThreadPool, SleepersWakeForTheNextJob) {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  for (int job = 0; job < 5; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than they spin; the test holds if they do not sleep, too
    pool.run([&](int) { ++calls; });
  }
  EXPECT_EQ(calls, 15);
}

TEST(ThreadPool, ALateWorkerIsWaitedFor) {
  ThreadPool pool(2);
  bool has_run = false;
  pool.run([&](int thread) {
    if (thread != 1) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    has_run = true;
  });
  EXPECT_TRUE(has_run);
}

TEST(ThreadPool, WhatIsBegunRunsBesideTheCaller) {
  for (int n : {1, 2, 3}) {
    std::atomic<int> n_calls = 0;
    std::atomic<bool> may_end = n == 1, has_begun = false;
    std::thread::id ran;
    auto work = [&] {
      has_begun = true;
      while (!may_end) std::this_thread::yield();
      ran = std::this_thread::get_id();
      ++n_calls;
    };
    {
      ThreadPool pool(n);
      pool.finish();  // nothing was begun
      pool.begin(work);
      while (!has_begun) std::this_thread::yield();  // or finish() would call it here
      may_end = true;                                // where begin() waited for the work, this would come too late
      pool.finish();
      EXPECT_EQ(n_calls, 1);
      EXPECT_EQ(ran == std::this_thread::get_id(), n == 1);
      // A run, another beginning and the end of the pool wait for it.
      pool.begin(work);
      pool.run([&](int) { EXPECT_EQ(n_calls, 2); });
      pool.begin(work);
      pool.begin(work);
    }
    EXPECT_EQ(n_calls, 4);
  }
}

TEST(Stages, EveryTaskOnceAndAfterTheStageBefore) {
  constexpr uint32_t kStages = 500;
  for (int n : {1, 2, 5}) {
    ThreadPool pool(n);
    Stages stages(n);
    auto n_tasks = [&](uint32_t stage) { return 1 + (stage * 7) % 5; };
    for (int run = 0; run < 5; ++run) {
      std::vector<std::vector<uint32_t>> seen(kStages);  // plain: the stages order who writes and reads
      for (uint32_t stage = 0; stage < kStages; ++stage) seen[stage].resize(n_tasks(stage) * size_t(n));
      stages.begin();
      pool.run([&](int call) {
        stages.work(call, kStages, n_tasks, [&](uint32_t stage, uint32_t i, uint32_t owner) {
          const std::vector<uint32_t> none;
          const std::vector<uint32_t>& before = stage ? seen[stage - 1] : none;
          seen[stage][i * size_t(n) + owner] += 1 + uint32_t(before.size() - size_t(std::count(before.begin(), before.end(), 0u)));
        });
      });
      // A task that began too early, or twice, has counted otherwise.
      for (uint32_t stage = 0; stage < kStages; ++stage) {
        const uint32_t want = 1 + (stage ? n_tasks(stage - 1) * uint32_t(n) : 0);
        EXPECT_EQ(seen[stage], std::vector<uint32_t>(seen[stage].size(), want));
      }
    }
  }
}

TEST(Stages, AThreadThatDoesNotComeHoldsUpNobody) {
  ThreadPool pool(2);
  Stages stages(2);
  std::atomic<bool> is_over = false;
  std::atomic<int> n_done = 0;
  stages.begin();
  pool.run([&](int call) {
    while (call == 1 && !is_over) std::this_thread::yield();
    stages.work(call, 10, [](uint32_t) { return 1; }, [&](uint32_t, uint32_t, uint32_t) { ++n_done; });
    is_over = true;
  });
  EXPECT_EQ(n_done, 20);
}

TEST(SpinBarrier, StagesSeeWhatTheStageBeforeWrote) {
  constexpr int kThreads = 4, kStages = 3000;
  ThreadPool pool(kThreads);
  SpinBarrier barrier(kThreads);
  std::vector<int> now(kThreads, 0), next(kThreads, 0);
  std::atomic<int> n_wrong = 0;
  pool.run([&](int thread) {
    for (int stage = 0; stage < kStages; ++stage) {
      std::vector<int>& read = stage % 2 ? next : now;
      std::vector<int>& write = stage % 2 ? now : next;
      if (std::accumulate(read.begin(), read.end(), 0) != stage * kThreads) ++n_wrong;
      write[size_t(thread)] = stage + 1;
      barrier.wait();
    }
  });
  EXPECT_EQ(n_wrong, 0);
}

TEST(SpinBarrier, OneThreadPasses) {
  SpinBarrier barrier(1);
  for (int i = 0; i < 3; ++i) barrier.wait();
}

}  // namespace
}  // namespace sb
