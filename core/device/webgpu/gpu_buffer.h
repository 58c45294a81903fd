// An owned buffer of the GPU, entered in the books of memory.
#pragma once

#include <atomic>
#include <span>
#include <utility>

#include "base/memory.h"
#include "device/webgpu/gpu.h"

namespace sb {

class GpuBuffer {
 public:
  GpuBuffer() = default;
  /// No two buffers of a process have the same one, while ids are used again. 0: none.
  uint64_t serial() const { return serial_; }
  /// What a buffer for so many bytes takes.
  static constexpr uint64_t bytes_of(uint64_t n_bytes) { return (n_bytes + 255) / 256 * 256; }
  /// Errors: kMemoryExhausted {n_bytes, tag, current}: larger than the device allows. What the driver refuses later is a gpu_error.
  static Result<GpuBuffer> take(Tag tag, uint64_t n_bytes, GpuUse use = GpuUse::kStorage) {
    GpuBuffer buffer;
    buffer.n_bytes_ = bytes_of(n_bytes);
    buffer.tag_ = tag;
    buffer.id_ = gpu_buffer(double(buffer.n_bytes_), uint32_t(use));
    if (!buffer.id_) {
      return err(Code::kMemoryExhausted, {{"n_bytes", n_bytes}, {"tag", tag_name(tag)}, {"current", memory_report().total.current}});
    }
    memory_take_gpu(tag, buffer.n_bytes_);
    static std::atomic<uint64_t> n_taken{0};
    buffer.serial_ = ++n_taken;
    return buffer;
  }
  GpuBuffer(GpuBuffer&& other) noexcept { swap(other); }
  GpuBuffer& operator=(GpuBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~GpuBuffer() {
    if (!id_) return;
    gpu_buffer_free(id_);
    memory_give_gpu(tag_, n_bytes_);
  }

  GpuId id() const { return id_; }
  uint64_t size() const { return id_ ? n_bytes_ : 0; }
  template <class T>
  void write(uint64_t offset, std::span<const T> from) const {
    gpu_write(id_, double(offset), from.data(), uint32_t(from.size_bytes()));
  }

 private:
  void swap(GpuBuffer& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(n_bytes_, other.n_bytes_);
    std::swap(serial_, other.serial_);
    std::swap(tag_, other.tag_);
  }
  GpuId id_ = 0;
  uint64_t n_bytes_ = 0, serial_ = 0;
  Tag tag_ = Tag::kWeights;
};

}  // namespace sb
