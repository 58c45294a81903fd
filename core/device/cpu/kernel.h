// What a CPU kernel gets, and the table of kernels that each instruction set fills.
#pragma once

#include <cstdint>

#include "ops/reference.h"

namespace sb {

/// Who does one of the parts that a step is done in, and which. Parts are done by whichever thread comes, in any order.
struct Worker {
  int part, n_parts;
  std::byte* scratch;  // the thread's own, KernelTable::scratch_bytes of it
  std::byte* shared;   // everyone's, KernelTable::shared_bytes of it, which were zero before the first run

  /// This part's share of n items, as a run [begin, end) that is a multiple of `grain` except at the end.
  void share(int64_t n, int64_t grain, int64_t& begin, int64_t& end) const {
    const int64_t grains = (n + grain - 1) / grain;
    begin = grains * part / n_parts * grain;
    end = grains * (part + 1) / n_parts * grain;
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

/// Rows of x for the block-quantised matmul of few tokens: 16-bit integers with a scale per 32, and the sums of what they stand for.
/// 16 bits, not 8: the answer stays within 1e-4 of float32, and greedy ids are the same on every machine. Scales and sums are padded with
/// zeros to a multiple of eight groups, which kernels take together.
struct PackedRow {
  int16_t* q;        // [K]; of kMixed, eights within each 32 in the instruction set's own order
  float* scale;      // [K / 32]
  float* sum;        // [K / 32]: scale · Σ q
  float* half_sums;  // [K / 16]: the same of each 16
  static int64_t n_groups(int64_t k) { return (k / 32 + 7) / 8 * 8; }
  static int64_t n_bytes(int64_t k) { return (2 * k + 16 * n_groups(k) + 63) / 64 * 64; }
  static PackedRow at(std::byte* base, int64_t row, int64_t k) {
    std::byte* p = base + row * n_bytes(k);
    float* floats = reinterpret_cast<float*>(p + 2 * k);
    return {reinterpret_cast<int16_t*>(p), floats, floats + n_groups(k), floats + 2 * n_groups(k)};
  }
};

/// Up to this many tokens a matmul reads its weights in place (few); above, it unpacks tiles of them (many). And up to this many, every
/// kernel gives a token the same bits as if it were alone: what a session drafts and checks depends on it (ops_test).
inline constexpr int64_t kFewTokens = 3;

/// Attention works on this many query rows (tokens × heads of one group) at a time.
inline constexpr int64_t kAttentionRows = 16;

/// What a matmul's input is packed into. Matmuls that read one value in one form share the packing; tables belong to a matrix of planes.
enum class PackedForm : uint8_t {
  kNone,    // read as it is
  kRows,    // PackedRow
  kMixed,   // PackedRow, for k types where these want q in another order
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
  int64_t (*scratch_bytes)(const Plan& plan);                   // a thread, for any step of the plan
  int64_t (*shared_bytes)(const Plan& plan, int64_t position);  // of all threads; the run's first token being the cache's `position`
};

/// The instruction sets of this build, best first, "scalar" last; those that this machine lacks are left out.
std::span<const KernelTable* const> kernel_tables();

}  // namespace sb
