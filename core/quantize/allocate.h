// Which group gets how many bits: the cheapest sum of losses under a byte budget.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sb {

/// What a group costs in one format: its bytes, and how much KL the model loses by it.
struct AllocationOption {
  std::string format;
  uint64_t n_bytes = 0;
  double loss = 0;  // nats a token
};
struct AllocationGroup {
  std::string name;
  std::vector<AllocationOption> options;
};

/// Picks an option for every group so that Σ bytes ≤ `budget` and Σ loss is least: along the lower convex hulls, steepest fall of loss per
/// byte first (which is the Lagrangian optimum at its own budgets), then whatever still fits. Losses of groups add up within 3–7 %
/// (docs/formats.md §2). Empty when even the smallest options do not fit; `minimum` then says what is needed.
std::vector<size_t> allocate(const std::vector<AllocationGroup>& groups, uint64_t budget, uint64_t* minimum);

}  // namespace sb
