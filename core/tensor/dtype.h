// What an element is. One row a type: name, GGUF's number (or -1), elements and bytes of its smallest storable block.
// Planes stands for every code of formats/planes.h: its bytes are whole arrays beside the tensor, not blocks in its rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sb {

// clang-format off
#define SB_DTYPES(ROW)            \
  /*  name   gguf block bytes */  \
  ROW(F32,     0,   1,   4)       \
  ROW(F16,     1,   1,   2)       \
  ROW(BF16,   30,   1,   2)       \
  ROW(I32,    26,   1,   4)       \
  ROW(Q4_0,    2,  32,  18)       \
  ROW(Q4_1,    3,  32,  20)       \
  ROW(Q5_0,    6,  32,  22)       \
  ROW(Q5_1,    7,  32,  24)       \
  ROW(Q8_0,    8,  32,  34)       \
  ROW(Q2_K,   10, 256,  84)       \
  ROW(Q3_K,   11, 256, 110)       \
  ROW(Q4_K,   12, 256, 144)       \
  ROW(Q5_K,   13, 256, 176)       \
  ROW(Q6_K,   14, 256, 210)       \
  ROW(U8,     -1,   1,   1)       \
  ROW(Planes, -1,  1,   0)
// clang-format on

enum class Dtype : uint8_t {
#define SB_ROW(name, gguf, block, bytes) k##name,
  SB_DTYPES(SB_ROW)
#undef SB_ROW
};

struct DtypeRow {
  const char* name;
  int32_t gguf;             // GGUF's type number, -1 if it has none
  int64_t block;            // elements a block
  int64_t bytes_per_block;  // bytes
};

inline constexpr DtypeRow kDtypeRows[] = {
#define SB_ROW(name, gguf, block, bytes) {#name, gguf, block, bytes},
    SB_DTYPES(SB_ROW)
#undef SB_ROW
};
inline constexpr size_t kDtypeCount = sizeof(kDtypeRows) / sizeof(kDtypeRows[0]);

constexpr const DtypeRow& dtype_row(Dtype dtype) { return kDtypeRows[size_t(dtype)]; }
constexpr const char* dtype_name(Dtype dtype) { return dtype_row(dtype).name; }

constexpr std::optional<Dtype> dtype_from_gguf(int64_t number) {
  for (size_t i = 0; i < kDtypeCount; ++i) {
    if (number >= 0 && kDtypeRows[i].gguf == number) return Dtype(i);
  }
  return std::nullopt;
}
constexpr std::optional<Dtype> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kDtypeCount; ++i) {
    if (name == kDtypeRows[i].name) return Dtype(i);
  }
  return std::nullopt;
}

/// Bytes of `n` elements in a row; `n` must be a multiple of the block (checked when a file is read).
constexpr int64_t dtype_bytes(Dtype dtype, int64_t n) { return n / dtype_row(dtype).block * dtype_row(dtype).bytes_per_block; }

}  // namespace sb
