// SHA-256 (FIPS 180-4), fed piece by piece. Our own: no library that is kept up links into wasm32 without an operating system and without
// bringing much else, and the browser's own digest is asynchronous and wants all the bytes at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sb {

class Sha256 {
 public:
  void update(std::span<const std::byte> bytes);
  /// The digest of what came so far, 64 lower-case digits. More may follow.
  std::string hex() const;

 private:
  void compress(const std::byte* blocks, size_t n_blocks);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> rest_{};  // the n_bytes_ % 64 bytes that do not fill a block yet
  uint64_t n_bytes_ = 0;
};

/// The digest of bytes that lie together.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace sb
