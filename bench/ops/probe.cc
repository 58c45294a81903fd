#include "probe.h"

#include "device/cpu/simd.h"

#define SB_TEXT_(x) #x
#define SB_TEXT(x) SB_TEXT_(x)

namespace sb::SB_ISA {
namespace {

uint32_t read(const std::byte* from, int64_t n_bytes) {
  I32 sums[4] = {};
  for (int64_t i = 0; i < n_bytes; i += 4 * int64_t(sizeof(I32))) {
    for (int j = 0; j < 4; ++j) sums[j] ^= load<I32>(from + i + j * int64_t(sizeof(I32)));
  }
  const I32 all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return uint32_t(all[0] ^ all[kLanes - 1]);
}

// Six sums hide the latency of any instruction set here. The operands come from memory, which for all the compiler knows changes, so that
// no product is taken once for all; a load beside each dot costs these machines nothing.
constexpr int kSums = 6;

int32_t dot_rounds(int64_t n) {
  static int16_t operands[kSums * 2 * kLanes];
  I32 sums[kSums] = {};
  const I16 a = I16{} + int16_t(3);
  for (int64_t round = 0; round < n; ++round) {
    asm volatile("" ::"r"(operands) : "memory");
    for (int i = 0; i < kSums; ++i) sums[i] = dot(a, load<I16>(operands + i * 2 * kLanes), sums[i]);
  }
  I32 all{};
  for (const I32& sum : sums) all += sum;
  return all[0];
}

}  // namespace

extern const Probe kProbe;
constexpr Probe kProbe = {SB_TEXT(SB_ISA), read, dot_rounds, int64_t(kSums) * 2 * kLanes};

}  // namespace sb::SB_ISA
