#include "tensor/tensor.h"

namespace sb {

std::string Shape::text() const {
  std::string out = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i) out += ", ";
    out += std::to_string(dims_[size_t(i)]);
  }
  return out + "]";
}

Result<uint64_t> dense_bytes(Dtype dtype, const Shape& shape) {
  const DtypeRow& row = dtype_row(dtype);
  auto refuse = [&](const char* expected) {
    return err(Code::kShapeMismatch, {{"what", std::string("A ") + row.name + " tensor"}, {"shape", shape.text()}, {"expected", expected}});
  };
  uint64_t n = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] < 0) return refuse("a shape without negative dimensions");
    if (__builtin_mul_overflow(n, uint64_t(shape[i]), &n)) return refuse("a size below 2^63 bytes");
  }
  if (shape.rank() > 0 && shape[-1] % row.block != 0) return refuse("rows that are whole blocks of the type");
  if (shape.rank() == 0 && row.block != 1) return refuse("rows that are whole blocks of the type");
  uint64_t blocks = n / uint64_t(row.block), n_bytes = 0;
  if (__builtin_mul_overflow(blocks, uint64_t(row.bytes_per_block), &n_bytes) || n_bytes > uint64_t(INT64_MAX))
    return refuse("a size below 2^63 bytes");
  return n_bytes;
}

}  // namespace sb
