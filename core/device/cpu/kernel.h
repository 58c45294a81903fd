// What a CPU kernel gets, and the table of kernels that each instruction set fills.
#pragma once

#include <cstdint>

#include "ops/reference.h"

namespace sb {

/// One thread of those that run a step together.
struct Worker {
  int thread, n_threads;
  std::byte* scratch;  // this thread's own, KernelTable::scratch_bytes of it

  /// This thread's share of n items, as a run [begin, end) that is a multiple of `grain` except at the end.
  void share(int64_t n, int64_t grain, int64_t& begin, int64_t& end) const {
    const int64_t grains = (n + grain - 1) / grain;
    begin = grains * thread / n_threads * grain;
    end = grains * (thread + 1) / n_threads * grain;
    if (end > n) end = n;
    if (begin > n) begin = n;
  }
};

/// One node with its memory resolved.
struct Step {
  const Op* op = nullptr;
  OpViews views;
  std::byte* packed = nullptr;  // matmul and pack: the input as the weight wants it
};

using Kernel = void (*)(const Step&, const Scalars&, const Worker&);

/// Rows of x for the block-quantised matmul of few tokens: 16-bit integers with a scale per 32, and float sums for the minima.
/// 16 bits, not 8: the answer stays within 1e-4 of float32, and greedy ids are the same on every machine.
struct PackedRow {
  const int16_t* q;        // [K]
  const float* scale_sum;  // [K / 32][2]: the scale, and the sum of the unpacked floats
  const float* half_sums;  // [K / 16]: the sums of each 16
  static int64_t n_bytes(int64_t k) { return (2 * k + k / 4 + k / 4 + 63) / 64 * 64; }
  static PackedRow at(const std::byte* base, int64_t row, int64_t k) {
    const std::byte* p = base + row * n_bytes(k);
    return {reinterpret_cast<const int16_t*>(p), reinterpret_cast<const float*>(p + 2 * k),
            reinterpret_cast<const float*>(p + 2 * k + k / 4)};
  }
};

/// Up to this many tokens a matmul reads its weights in place (few); above, it unpacks tiles of them (many).
inline constexpr int64_t kFewTokens = 3;

/// Attention works on this many query rows (tokens × heads of one group) at a time.
inline constexpr int64_t kAttentionRows = 16;

/// What a matmul's input is packed into. Matmuls that read one value in one form share the packing; tables belong to a matrix of planes.
enum class PackedForm : uint8_t {
  kNone,    // read as it is
  kRows,    // PackedRow
  kPanels,  // float32, tokens as lanes
  kTiles,   // bytes with a scale per 32, tokens as lanes
  kTables,  // signed sums of four inputs, for planes
};

struct KernelTable {
  const char* isa;
  Kernel by_op[kOpCount];
  Kernel pack;  // of a matmul's node: views.in[0] → packed, in the form that its weight in[1] wants
  /// Bytes of a form for x [T, K].
  int64_t (*packed_bytes)(PackedForm form, const TensorView& weight, int64_t n_tokens, int64_t k);
  PackedForm (*packed_form)(const TensorView& weight, int64_t n_tokens, bool exact);
  int64_t (*scratch_bytes)(const Plan& plan);  // a thread, for any step of the plan
};

/// The instruction sets of this build, best first, "scalar" last; those that this machine lacks are left out.
std::span<const KernelTable* const> kernel_tables();

}  // namespace sb
