#include "base/memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "base/host_malloc.h"
#include "base/json.h"
#include "base/lasting.h"

namespace sb {
namespace {

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

/// What a block of n bytes takes.
uint64_t in_lines(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

struct AtomicBooks {
  std::atomic<uint64_t> current{0};
  std::atomic<uint64_t> peak{0};

  void take(uint64_t n) {
    uint64_t now = current.fetch_add(n, std::memory_order_relaxed) + n;
    uint64_t high = peak.load(std::memory_order_relaxed);
    while (now > high && !peak.compare_exchange_weak(high, now, std::memory_order_relaxed)) {}
  }
  void give(uint64_t n) { current.fetch_sub(n, std::memory_order_relaxed); }
  TagBooks read() const { return {current.load(std::memory_order_relaxed), peak.load(std::memory_order_relaxed)}; }
};

struct AllBooks {
  AtomicBooks total;
  std::array<AtomicBooks, kTagCount> by_tag;

  void take(Tag tag, uint64_t n) {
    total.take(n);
    by_tag[size_t(tag)].take(n);
  }
  void give(Tag tag, uint64_t n) {
    total.give(n);
    by_tag[size_t(tag)].give(n);
  }
  void reset_peak() {
    total.peak = total.current.load();
    for (AtomicBooks& books : by_tag) books.peak = books.current.load();
  }
};

constinit AllBooks g_all, g_gpu;

OrderedJson books_json(const TagBooks& total, const std::array<TagBooks, kTagCount>& by_tag) {
  OrderedJson j = {{"current", total.current}, {"peak", total.peak}};
  for (size_t i = 0; i < kTagCount; ++i) j["by_tag"][tag_name(Tag(i))] = {{"current", by_tag[i].current}, {"peak", by_tag[i].peak}};
  return j;
}

}  // namespace

const char* tag_name(Tag tag) {
  static constexpr const char* kNames[kTagCount] = {"weights", "kv", "activations", "staging", "scratch", "host"};
  return kNames[size_t(tag)];
}

void memory_take(Tag tag, uint64_t n_bytes) { g_all.take(tag, n_bytes); }
void memory_give(Tag tag, uint64_t n_bytes) { g_all.give(tag, n_bytes); }
void memory_take_gpu(Tag tag, uint64_t n_bytes) {
  g_all.take(tag, n_bytes);
  g_gpu.take(tag, n_bytes);
}
void memory_give_gpu(Tag tag, uint64_t n_bytes) {
  g_all.give(tag, n_bytes);
  g_gpu.give(tag, n_bytes);
}

MemoryReport memory_report() {
  MemoryReport report;
  report.total = g_all.total.read();
  report.gpu = g_gpu.total.read();
  for (size_t i = 0; i < kTagCount; ++i) {
    report.by_tag[i] = g_all.by_tag[i].read();
    report.gpu_by_tag[i] = g_gpu.by_tag[i].read();
  }
  return report;
}

void memory_reset_peak() {
  g_all.reset_peak();
  g_gpu.reset_peak();
}

std::string memory_report_json() {
  const MemoryReport report = memory_report();
  OrderedJson j = books_json(report.total, report.by_tag);
  j["gpu"] = books_json(report.gpu, report.gpu_by_tag);
  return json_text(j);
}

Result<Block> Block::take(Tag tag, uint64_t n_bytes) {
  Block block;
  if (n_bytes == 0) return block;
  const uint64_t rounded = in_lines(n_bytes);
  const bool can_be = rounded >= n_bytes && rounded <= SIZE_MAX / 2;
  void* data = can_be ? take_lasting(tag, size_t(rounded)) : nullptr;
  if (!data && can_be) {
    data = host_malloc(kAlignment, size_t(rounded));
    if (data) std::memset(data, 0, size_t(rounded));
  }
  if (!data) return err(Code::kMemoryExhausted, {{"n_bytes", n_bytes}, {"tag", tag_name(tag)}, {"current", memory_report().total.current}});
  memory_take(tag, rounded);
  block.data_ = static_cast<std::byte*>(data);
  block.n_bytes_ = n_bytes;
  block.tag_ = tag;
  return block;
}

Block::~Block() {
  if (!data_) return;
  const uint64_t rounded = in_lines(n_bytes_);
  if (!give_lasting(tag_, data_, size_t(rounded))) host_free(data_);
  memory_give(tag_, rounded);
}

}  // namespace sb
