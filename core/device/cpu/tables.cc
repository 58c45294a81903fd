// Which kernel tables this machine can run.
#include <array>

#include "device/cpu/kernel.h"

namespace sb {

#define SB_ISA_TABLE(isa)          \
  namespace isa {                  \
  extern const KernelTable kTable; \
  }
#ifdef SB_HAS_avx512
SB_ISA_TABLE(avx512)
#endif
#ifdef SB_HAS_avx2
SB_ISA_TABLE(avx2)
#endif
#ifdef SB_HAS_sse4
SB_ISA_TABLE(sse4)
#endif
#ifdef SB_HAS_neon
SB_ISA_TABLE(neon)
#endif
#ifdef SB_HAS_relaxed
SB_ISA_TABLE(relaxed)
#endif
#ifdef SB_HAS_simd128
SB_ISA_TABLE(simd128)
#endif

namespace {

// The reference, as kernels: the first thread does it all.
template <size_t kOp>
void reference(const Step& step, const Scalars& scalars, const Worker& worker) {
  if (worker.part == 0) run_reference(*step.op, step.views, scalars);
}
template <size_t... kOps>
constexpr KernelTable reference_table(std::index_sequence<kOps...>) {
  return {"scalar",
          {reference<kOps>...},
          nullptr,
          nullptr,
          nullptr,
          [](const Plan&) { return int64_t(64); },
          [](const Plan&, int64_t) { return int64_t(0); }};
}
constexpr KernelTable kScalar = reference_table(std::make_index_sequence<kOpCount>());

struct Found {
  std::array<const KernelTable*, 8> tables;
  size_t n = 0;
  Found() {
#ifdef SB_HAS_avx512
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni")) {
      tables[n++] = &avx512::kTable;
    }
#endif
#ifdef SB_HAS_avx2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) tables[n++] = &avx2::kTable;
#endif
#ifdef SB_HAS_sse4
    if (__builtin_cpu_supports("sse4.1")) tables[n++] = &sse4::kTable;
#endif
#ifdef SB_HAS_neon
    tables[n++] = &neon::kTable;
#endif
#ifdef SB_HAS_relaxed
    tables[n++] = &relaxed::kTable;
#endif
#ifdef SB_HAS_simd128
    tables[n++] = &simd128::kTable;
#endif
    tables[n++] = &kScalar;
  }
};

}  // namespace

std::span<const KernelTable* const> kernel_tables() {
  static const Found found;
  return {found.tables.data(), found.n};
}

}  // namespace sb
