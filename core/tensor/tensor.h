// Shapes, and views of memory that somebody else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/result.h"
#include "tensor/dtype.h"

namespace sb {

/// Up to four dimensions, outermost first: a matrix of N outputs and K inputs is [N, K].
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims) push(d);
  }
  constexpr void push(int64_t d) { dims_[size_t(rank_++)] = d; }
  constexpr int rank() const { return rank_; }
  constexpr int64_t operator[](int i) const { return dims_[size_t(i < 0 ? rank_ + i : i)]; }
  constexpr int64_t& operator[](int i) { return dims_[size_t(i < 0 ? rank_ + i : i)]; }
  constexpr int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[size_t(i)];
    return n;
  }
  /// Rows: all dimensions but the last, multiplied.
  constexpr int64_t rows() const { return rank_ == 0 || dims_[size_t(rank_ - 1)] == 0 ? 0 : elements() / dims_[size_t(rank_ - 1)]; }
  constexpr bool operator==(const Shape&) const = default;
  /// "[49152, 576]".
  std::string text() const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct PlaneMatrix;  // formats/planes.h
class DeviceRows;    // device/device_rows.h

/// Memory seen as rows: `data` is the first row, rows are `row_bytes` apart, elements in a row are dense.
/// shape [.., K]: leading dimensions count rows. A matrix of kPlanes has no rows of its own: it is rows [first_row, first_row + N) of
/// `planes`, and `data` is null. So it is where a device keeps the rows in memory of its own: they are `there`.
struct TensorView {
  const std::byte* data = nullptr;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  int64_t row_bytes = 0;
  const PlaneMatrix* planes = nullptr;
  int64_t first_row = 0;
  const DeviceRows* there = nullptr;

  template <class T>
  const T* row(int64_t r) const {
    return reinterpret_cast<const T*>(data + r * row_bytes);
  }
  const std::byte* row_bytes_at(int64_t r) const { return data + r * row_bytes; }
};

struct MutableTensorView {
  std::byte* data = nullptr;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  int64_t row_bytes = 0;

  template <class T>
  T* row(int64_t r) const {
    return reinterpret_cast<T*>(data + r * row_bytes);
  }
  operator TensorView() const { return {data, dtype, shape, row_bytes, nullptr, 0}; }
};

/// Bytes of a dense tensor. Errors: kShapeMismatch when the last dimension is no multiple of the type's block, a dimension is negative,
/// or the size does not fit 63 bits.
Result<uint64_t> dense_bytes(Dtype dtype, const Shape& shape);

}  // namespace sb
