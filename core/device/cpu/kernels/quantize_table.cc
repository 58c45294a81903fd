// The quantiser's kernels of one instruction set. Compiled once a set, like table.cc.
#include "device/cpu/kernels/quantize-inl.h"

namespace sb::SB_ISA {

extern const QuantizeKernels kQuantizeTable;
constexpr QuantizeKernels kQuantizeTable = {product, viterbi, axpy, halve, widen};

}  // namespace sb::SB_ISA
