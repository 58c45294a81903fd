#include "quantize/give_back.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace sb {

std::vector<std::string> give_back_order(const std::vector<RefinementValue>& refinements) {
  auto loss_per_byte = [](const RefinementValue& r) {
    return r.power > 0 && r.n_bytes > 0 ? (r.base_error - r.refined_error) / r.power / double(r.n_bytes) : 0;
  };
  std::vector<size_t> order(refinements.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::ranges::sort(order, {}, [&](size_t i) { return std::pair(loss_per_byte(refinements[i]), i); });
  std::vector<std::string> names;
  for (const size_t i : order) names.push_back(refinements[i].matrix);
  return names;
}

}  // namespace sb
