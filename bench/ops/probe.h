// What this machine can do at most, to set a kernel's rate against: compiled once an instruction set, as the kernels are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sb {

struct Probe {
  const char* isa;
  /// Reads n_bytes (a multiple of 1024) once and does as little with them as it can.
  uint32_t (*read)(const std::byte* from, int64_t n_bytes);
  /// n rounds of dot products of 16-bit pairs in as many independent sums as the registers hold; returns something of them.
  int32_t (*dot)(int64_t n);
  int64_t macs_per_dot;  // multiply-adds of a round
};

}  // namespace sb
