// Which of the quantiser's kernels this machine runs. A file of its own: nothing that answers refers to it, so a linker leaves it out.
#include <string_view>

#include "device/cpu/kernel.h"
#include "device/cpu/quantize_kernels.h"

namespace sb {

// SB_ISA_ROWS: SB_ISA_ROW(name) for each instruction set of this build (isa.cmake).
#define SB_ISA_ROW(isa)                        \
  namespace isa {                              \
  extern const QuantizeKernels kQuantizeTable; \
  }
SB_ISA_ROWS
#undef SB_ISA_ROW

namespace {

#define SB_ISA_ROW(isa) \
  if (best == #isa) return isa::kQuantizeTable;
QuantizeKernels of_best_isa() {
  const std::string_view best = kernel_tables().front()->isa;
  SB_ISA_ROWS
  return {};  // "scalar", where there is nothing better
}
#undef SB_ISA_ROW

}  // namespace

const QuantizeKernels& quantize_kernels() {
  static const QuantizeKernels found = of_best_isa();
  return found;
}

}  // namespace sb
