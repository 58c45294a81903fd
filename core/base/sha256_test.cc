#include "base/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace sb {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// FIPS 180-4's examples (csrc.nist.gov, "Example values", SHA256.pdf and SHA2_Additional.pdf).
struct Vector {
  std::string text;
  const char* hex;
};
const Vector kVectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    {"\xbd", "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b"},
    {std::string(55, '\0'), "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7"},
    {std::string(56, '\0'), "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb"},
    {std::string(64, '\0'), "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"},
    {std::string(1000, '\0'), "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"},
};

TEST(Sha256, TheStandardsVectors) {
  for (const Vector& row : kVectors) EXPECT_EQ(sha256_hex(bytes_of(row.text)), row.hex) << row.text.size() << " bytes";
}

TEST(Sha256, InOddPieces) {
  for (const Vector& row : kVectors) {
    for (size_t first : {1u, 3u, 63u, 64u, 65u, 127u}) {
      Sha256 sum;
      std::span<const std::byte> rest = bytes_of(row.text);
      for (size_t n = first; !rest.empty(); n = n * 3 % 200 + 1) {
        const size_t part = std::min(n, rest.size());
        sum.update(rest.first(part));
        if (n % 7 == 0) (void)sum.hex();  // looking changes nothing
        rest = rest.subspan(part);
      }
      EXPECT_EQ(sum.hex(), row.hex) << row.text.size() << " bytes, first " << first;
    }
  }
}

}  // namespace
}  // namespace sb
