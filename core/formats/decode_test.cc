#include "formats/decode.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/list.h"

namespace sb {
namespace {

std::string file_text(const std::string& path) {
  std::string text;
  if (FILE* file = std::fopen(path.c_str(), "rb")) {
    char part[1 << 16];
    for (size_t n; (n = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    std::fclose(file);
  }
  return text;
}

// Oracle: numpy code of PyPI's gguf package (tools/make_gguf_decode_vectors.py). Equal to the bit: both round after each product and sum.
TEST(Decode, EqualsTheGgufPackage) {
  auto rows = json_parse(file_text(SB_TESTS "/golden/gguf_decode.json"), "gguf_decode.json");
  ASSERT_TRUE(rows);
  const std::string data = file_text(SB_TESTS "/golden/gguf_decode.bin");
  ASSERT_EQ(rows->size(), kDtypeCount - 3);  // all but I32, U8 and Planes, which the package leaves alone
  for (const Json& row : *rows) {
    const std::string name = row["dtype"];
    const auto dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype) << name;
    const int64_t n = row["elements"];
    std::vector<float> got(size_t(n), NAN), want(static_cast<size_t>(n));
    ASSERT_LE(row["expected_at"].get<size_t>() + want.size() * 4, data.size());
    ASSERT_EQ(row["expected_at"].get<int64_t>() - row["blocks_at"].get<int64_t>(), dtype_bytes(*dtype, n)) << name;
    std::memcpy(want.data(), data.data() + row["expected_at"].get<size_t>(), want.size() * 4);
    decode_row(*dtype, reinterpret_cast<const std::byte*>(data.data()) + row["blocks_at"].get<size_t>(), got.data(), n);
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
          << name << " element " << i << ": " << got[i] << " " << want[i];
    }
  }
}

TEST(Decode, IntegersBecomeFloats) {
  const int32_t from[4] = {0, -1, 65536, INT32_MIN};
  float to[4];
  decode_row(Dtype::kI32, reinterpret_cast<const std::byte*>(from), to, 4);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(to[i], float(from[i]));
}

TEST(Half, EveryHalfEqualsTheCompilers) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float want = float(std::bit_cast<_Float16>(uint16_t(bits))), got = half_to_float(uint16_t(bits));
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(want)) << bits;
      ASSERT_EQ(float_to_half(got), bits);
    }
  }
}

TEST(Half, RoundsAsTheCompilerDoes) {
  // Every 8-bit exponent, and mantissas around each rounding boundary.
  for (uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (uint32_t top = 0; top < 1024; top += 31) {
      for (uint32_t low : {0u, 1u, 0x0FFFu, 0x1000u, 0x1001u, 0x1FFFu}) {
        const float value = std::bit_cast<float>(exponent << 23 | top << 13 | low);
        const _Float16 want = _Float16(value);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(half_to_float(float_to_half(value))));
        } else {
          ASSERT_EQ(float_to_half(value), std::bit_cast<uint16_t>(want)) << value;
          ASSERT_EQ(float_to_half(-value), std::bit_cast<uint16_t>(_Float16(-value))) << value;
        }
      }
    }
  }
}

TEST(Formats, ScalesLieInsideTheirBlocks) {
  for (const Format& format : kFormats) {
    const DtypeRow& row = dtype_row(format.dtype);
    for (int at : format.half_at) {
      if (at >= 0) EXPECT_LE(int64_t(at) + 2, row.bytes_per_block) << row.name;
    }
    EXPECT_EQ(row.block > 1, format.half_at[0] >= 0) << row.name;
  }
}

}  // namespace
}  // namespace sb
