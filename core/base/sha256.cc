#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sb {
namespace {

constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big_endian(const std::byte* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return std::byteswap(word);
}

/// One round on letters that the caller turns instead of moving values from letter to letter.
inline void step(uint32_t a, uint32_t b, uint32_t c, uint32_t& d, uint32_t e, uint32_t f, uint32_t g, uint32_t& h, uint32_t key_and_word) {
  const uint32_t t = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & (f ^ g)) ^ g) + key_and_word;
  d += t;
  h = t + (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) | (c & (a | b)));
}

}  // namespace

void Sha256::compress(const std::byte* blocks, size_t n_blocks) {
  for (; n_blocks; --n_blocks, blocks += 64) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) w[i] = big_endian(blocks + 4 * i);
    for (int i = 16; i < 64; ++i) {
      const uint32_t x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + (std::rotr(x, 7) ^ std::rotr(x, 18) ^ x >> 3) + w[i - 7] + (std::rotr(y, 17) ^ std::rotr(y, 19) ^ y >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (int i = 0; i < 64; i += 8) {
      step(a, b, c, d, e, f, g, h, kRound[i] + w[i]);
      step(h, a, b, c, d, e, f, g, kRound[i + 1] + w[i + 1]);
      step(g, h, a, b, c, d, e, f, kRound[i + 2] + w[i + 2]);
      step(f, g, h, a, b, c, d, e, kRound[i + 3] + w[i + 3]);
      step(e, f, g, h, a, b, c, d, kRound[i + 4] + w[i + 4]);
      step(d, e, f, g, h, a, b, c, kRound[i + 5] + w[i + 5]);
      step(c, d, e, f, g, h, a, b, kRound[i + 6] + w[i + 6]);
      step(b, c, d, e, f, g, h, a, kRound[i + 7] + w[i + 7]);
    }
    const uint32_t add[8] = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state_[i] += add[i];
  }
}

void Sha256::update(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const size_t n_rest = size_t(n_bytes_ % 64);
  n_bytes_ += bytes.size();
  if (n_rest) {
    const size_t n = std::min(bytes.size(), 64 - n_rest);
    std::memcpy(rest_.data() + n_rest, bytes.data(), n);
    if (n_rest + n < 64) return;
    compress(rest_.data(), 1);
    bytes = bytes.subspan(n);
  }
  compress(bytes.data(), bytes.size() / 64);
  const std::span<const std::byte> tail = bytes.last(bytes.size() % 64);
  if (!tail.empty()) std::memcpy(rest_.data(), tail.data(), tail.size());
}

std::string Sha256::hex() const {
  // A one bit, zeros, and the length in bits as the last 8 bytes of a block.
  Sha256 ended = *this;
  std::array<std::byte, 72> end{std::byte(0x80)};
  const size_t n_zeros = (119 - n_bytes_ % 64) % 64;
  for (size_t i = 0; i < 8; ++i) end[1 + n_zeros + i] = std::byte(n_bytes_ * 8 >> (56 - 8 * i) & 0xFF);
  ended.update(std::span(end).first(1 + n_zeros + 8));
  std::string out;
  for (uint32_t word : ended.state_) {
    for (int shift = 28; shift >= 0; shift -= 4) out += "0123456789abcdef"[word >> shift & 15];
  }
  return out;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 sum;
  sum.update(bytes);
  return sum.hex();
}

}  // namespace sb
