// A stored matrix in a device's own memory: it goes there as its bytes come, and the host keeps none of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "formats/planes.h"

namespace sb {

/// How the rows of a matrix are stored, and where it may be cut by a device that cannot hold it in one piece.
struct RowLayout {
  int64_t n_rows = 0, row_bytes = 0;
  int64_t grain_rows = 1;    // pieces begin at multiples of it
  int64_t widest_bytes = 0;  // a row's in the widest of the sets that share their pieces; 0: row_bytes
};

/// Of a set of planes in rows' order, [N, P, K/32] words; the pieces of all sets of a matrix have the same rows.
inline RowLayout plane_layout(int64_t n_rows, int64_t n_planes, int64_t n_columns) {
  return {n_rows, n_planes * n_columns / 8, plane_segment(n_rows), kMaxPlanes * n_columns / 8};
}

class DeviceRows {
 public:
  explicit DeviceRows(uint64_t n_bytes) : n_bytes_(n_bytes) {}
  virtual ~DeviceRows() = default;
  DeviceRows(const DeviceRows&) = delete;
  DeviceRows& operator=(const DeviceRows&) = delete;

  /// Of all rows.
  uint64_t n_bytes() const { return n_bytes_; }
  /// How many of them have come.
  uint64_t n_come() const { return n_come_; }
  /// The next bytes in the rows' order, at most as many as are missing; `bytes` may change afterwards.
  /// Errors: kMemoryExhausted, kDeviceLost, kDeviceFailed.
  Status append(std::span<const std::byte> bytes) {
    SB_ASSERT(bytes.size() <= n_bytes_ - n_come_);
    SB_OK(write(n_come_, bytes));
    n_come_ += bytes.size();
    return {};
  }

 private:
  virtual Status write(uint64_t offset, std::span<const std::byte> bytes) = 0;

  uint64_t n_bytes_, n_come_ = 0;
};

}  // namespace sb
