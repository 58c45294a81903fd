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

// Eight sums hide the latency of any instruction set here; the operands are kept from being folded by an empty statement that might
// change them.
constexpr int kSums = 8;

int32_t dot_rounds(int64_t n) {
  I32 sums[kSums] = {};
  I16 a = I16{} + int16_t(3), b = I16{} + int16_t(5);
  for (int64_t i = 0; i < n; ++i) {
#if defined(__x86_64__)
    asm volatile("" : "+x"(a), "+x"(b));
#else
    a ^= 1;
#endif
    for (I32& sum : sums) sum = dot(a, b, sum);
  }
  I32 all{};
  for (const I32& sum : sums) all += sum;
  return all[0];
}

}  // namespace

extern const Probe kProbe;
constexpr Probe kProbe = {SB_TEXT(SB_ISA), read, dot_rounds, int64_t(kSums) * 2 * kLanes};

}  // namespace sb::SB_ISA
