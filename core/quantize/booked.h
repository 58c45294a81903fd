// Vectors whose bytes stand in the books of memory (Tag::kScratch): everything of the quantiser that grows with the model or the text.
#pragma once

#include <cstdlib>
#include <vector>

#include "base/host.h"
#include "base/memory.h"

namespace sb {

template <class T>
struct BookedAllocator {
  using value_type = T;
  BookedAllocator() = default;
  template <class U>
  BookedAllocator(const BookedAllocator<U>&) {}
  T* allocate(size_t n) {
    // Not operator new, which in WebAssembly enters the bytes under another tag.
    T* bytes = static_cast<T*>(std::malloc(n * sizeof(T)));
    if (!bytes) host_fatal("out of memory");
    memory_take(Tag::kScratch, n * sizeof(T));
    return bytes;
  }
  void deallocate(T* bytes, size_t n) {
    std::free(bytes);
    memory_give(Tag::kScratch, n * sizeof(T));
  }
  template <class U>
  bool operator==(const BookedAllocator<U>&) const {
    return true;
  }
};

template <class T>
using Booked = std::vector<T, BookedAllocator<T>>;

}  // namespace sb
