// The books of memory: every byte the engine takes has a tag, and the monitor, the plan before a load and the reports read the same
// books. One set of books a process (in the page: a worker).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace sb {

enum class Tag : uint8_t {
  kWeights,      // model tensors
  kKv,           // key-value caches
  kActivations,  // a plan's arena
  kStaging,      // bytes on their way from the host
  kScratch,      // kernels' own working space
  kHost,         // everything taken through operator new: strings, tokenizers, plans
};
inline constexpr size_t kTagCount = 6;
const char* tag_name(Tag tag);

struct TagBooks {
  uint64_t current = 0;  // bytes
  uint64_t peak = 0;     // bytes
};

struct MemoryReport {
  TagBooks total;
  std::array<TagBooks, kTagCount> by_tag;
  // What of it lies in a GPU's own memory.
  TagBooks gpu;
  std::array<TagBooks, kTagCount> gpu_by_tag;
};

/// What is in use now, and the most that was.
MemoryReport memory_report();
/// Peaks start anew from the current bytes.
void memory_reset_peak();
/// {current, peak, by_tag: {weights: {current, peak}, …}, gpu: {current, peak, by_tag}} as JSON text.
std::string memory_report_json();

/// Enters bytes that were taken elsewhere (operator new does this for kHost).
void memory_take(Tag tag, uint64_t n_bytes);
void memory_give(Tag tag, uint64_t n_bytes);
/// … or bytes of a GPU's own memory.
void memory_take_gpu(Tag tag, uint64_t n_bytes);
void memory_give_gpu(Tag tag, uint64_t n_bytes);

/// An owned run of bytes, 64-byte aligned, zeroed, entered in the books.
class Block {
 public:
  Block() = default;
  /// Errors: kMemoryExhausted {n_bytes, tag, current}.
  static Result<Block> take(Tag tag, uint64_t n_bytes);
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    swap(other);
    return *this;
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  uint64_t size() const { return n_bytes_; }
  std::span<std::byte> bytes() { return {data_, size_t(n_bytes_)}; }
  std::span<const std::byte> bytes() const { return {data_, size_t(n_bytes_)}; }

 private:
  void swap(Block& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(tag_, other.tag_);
  }
  std::byte* data_ = nullptr;
  uint64_t n_bytes_ = 0;
  Tag tag_ = Tag::kHost;
};

}  // namespace sb
