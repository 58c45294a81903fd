// IEEE half precision in plain integer and float32 arithmetic: no target here has it in its baseline.
// Method: Marat Dukhan's FP16 (github.com/Maratyszcza/FP16); checked against the compiler's _Float16 for all inputs in decode_test.cc.
#include <bit>
#include <cstdint>

#include "formats/decode.h"

namespace sb {

float half_to_float(uint16_t half) {
  const uint32_t w = uint32_t(half) << 16;
  const uint32_t sign = w & 0x8000'0000u;
  const uint32_t doubled = w + w;  // the sign falls out
  const float normal = std::bit_cast<float>((doubled >> 4) + (0xE0u << 23)) * 0x1.0p-112f;
  const float subnormal = std::bit_cast<float>((doubled >> 17) | (126u << 23)) - 0.5f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(doubled < (1u << 27) ? subnormal : normal));
}

uint16_t float_to_half(float value) {
  const uint32_t w = std::bit_cast<uint32_t>(value);
  const uint32_t doubled = w + w;
  // Scaling up and down again saturates what is too large; adding a power of two above the value rounds it to ten bits.
  const float magnitude = std::bit_cast<float>(w & 0x7FFF'FFFFu);
  const float base = (magnitude * 0x1.0p+112f) * 0x1.0p-110f;
  uint32_t bias = doubled & 0xFF00'0000u;
  if (bias < 0x7100'0000u) bias = 0x7100'0000u;
  const uint32_t bits = std::bit_cast<uint32_t>(std::bit_cast<float>((bias >> 1) + 0x0780'0000u) + base);
  const uint32_t unsigned_half = ((bits >> 13) & 0x7C00u) + (bits & 0x0FFFu);
  return uint16_t(((w & 0x8000'0000u) >> 16) | (doubled > 0xFF00'0000u ? 0x7E00u : unsigned_half));
}

}  // namespace sb
