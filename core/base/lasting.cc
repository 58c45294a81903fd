#include "base/lasting.h"

// Not beside AddressSanitizer, which sees only past the ends of what its own allocator gave.
#if defined(__linux__) && defined(__LP64__) && !__has_feature(address_sanitizer)
#define SB_LASTING 1
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>
#endif

namespace sb {

#if defined(SB_LASTING)
namespace {

constexpr size_t kLargePage = 2 << 20;
constexpr size_t kLeast = 64 << 10;          // smaller ones are hardly read
constexpr size_t kRegion = size_t(1) << 30;  // of addresses; memory is there once it is written

/// What a token reads.
bool is_lasting(Tag tag, size_t n_bytes) { return (tag == Tag::kWeights || tag == Tag::kKv) && n_bytes >= kLeast; }
size_t up_to(size_t n, size_t to) { return (n + to - 1) / to * to; }

struct Region {
  Tag tag;
  std::byte* data;
  size_t n_bytes, n_used = 0;
  size_t n_blocks = 0;  // not given back
};

struct Regions {
  std::mutex mutex;
  std::vector<Region> all;
};
/// Never destroyed: a static Block may outlive any order of destruction.
Regions& regions() {
  static Regions* const known = new Regions;
  return *known;
}

/// Addresses for a region, which begin at a large page.
std::byte* reserve(size_t n_bytes) {
  void* const found = mmap(nullptr, n_bytes + kLargePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(found);
  const size_t before = up_to(reinterpret_cast<uintptr_t>(begin), kLargePage) - reinterpret_cast<uintptr_t>(begin);
  if (before) munmap(begin, before);
  if (before < kLargePage) munmap(begin + before + n_bytes, kLargePage - before);
  madvise(begin + before, n_bytes, MADV_HUGEPAGE);  // a system without large pages says no, and that is all
  return begin + before;
}

}  // namespace

void* take_lasting(Tag tag, size_t n_bytes) {
  if (!is_lasting(tag, n_bytes)) return nullptr;
  Regions& known = regions();
  const std::lock_guard lock(known.mutex);
  auto region = std::ranges::find_if(known.all, [&](const Region& r) { return r.tag == tag && r.n_bytes - r.n_used >= n_bytes; });
  if (region == known.all.end()) {
    const size_t n_region = std::max(kRegion, up_to(n_bytes, kLargePage));
    std::byte* const data = reserve(n_region);
    if (!data) return nullptr;
    region = known.all.insert(known.all.end(), {tag, data, n_region});
  }
  std::byte* const data = region->data + region->n_used;
  region->n_used += n_bytes;
  ++region->n_blocks;
  return data;
}

bool give_lasting(Tag tag, void* data, size_t n_bytes) {
  if (!is_lasting(tag, n_bytes)) return false;
  auto* const begin = static_cast<std::byte*>(data);
  Regions& known = regions();
  const std::lock_guard lock(known.mutex);
  const auto region = std::ranges::find_if(known.all, [&](const Region& r) { return begin >= r.data && begin < r.data + r.n_bytes; });
  if (region == known.all.end()) return false;
  if (--region->n_blocks == 0) {
    munmap(region->data, region->n_bytes);
    known.all.erase(region);
    return true;
  }
  static const auto page = uintptr_t(sysconf(_SC_PAGESIZE));
  const auto at = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = up_to(at, page), end = (at + n_bytes) / page * page;
  if (first < end) madvise(begin + (first - at), end - first, MADV_DONTNEED);
  return true;
}
#else
void* take_lasting(Tag, size_t) { return nullptr; }
bool give_lasting(Tag, void*, size_t) { return false; }
#endif

}  // namespace sb
