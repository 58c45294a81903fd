// All kernels of one instruction set but the quantiser's. Compiled once a set, with SB_ISA and that set's flags
// (core/device/cpu/isa.cmake).
#include "device/cpu/kernels/attention-inl.h"
#include "device/cpu/kernels/matmul-inl.h"
#include "device/cpu/kernels/rows-inl.h"

#define SB_TEXT_(x) #x
#define SB_TEXT(x) SB_TEXT_(x)

namespace sb::SB_ISA {
namespace {

int64_t scratch_bytes(const Plan& plan) {
  int64_t n = std::max(ManyScratch::n_floats(plan.n_tokens()) * 4, TileScratch::n_bytes(plan.n_tokens()));
  for (const Node& node : plan.nodes()) {
    if (std::holds_alternative<MatMul>(node.op)) {
      const PlaneMatrix* planes = plan.values()[size_t(node.inputs[1])].weight.planes;
      if (planes) n = std::max(n, PlaneScratch::n_bytes(*planes));
    }
    if (const Attention* op = std::get_if<Attention>(&node.op)) n = std::max(n, AttentionScratch::n_floats(op->head_dim) * 4);
  }
  return (n + 63) / 64 * 64;
}

int64_t shared_bytes(const Plan& plan, int64_t position) {
  int64_t n = 0;
  for (const Node& node : plan.nodes()) {
    if (const Attention* op = std::get_if<Attention>(&node.op)) n = std::max(n, KeyRuns(*op, plan.n_tokens(), position).n_bytes());
  }
  return n;
}

}  // namespace

extern const KernelTable kTable;
constexpr KernelTable kTable = {
    SB_TEXT(SB_ISA),
    // In the order of the Op variant (device/op.h).
    {embed, matmul, rms_norm, layer_norm, rope_table, rope, cache_write, attention, glu, activate, add, softcap, last_row},
    pack,
    packed_bytes,
    packed_form,
    scratch_bytes,
    shared_bytes,
};

}  // namespace sb::SB_ISA
