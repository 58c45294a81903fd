#include "quantize/allocate.h"

#include <algorithm>
#include <limits>

namespace sb {
namespace {

/// Options on the lower convex hull of (bytes, loss), by rising bytes: each step up buys less per byte than the one before.
std::vector<size_t> hull_of(const std::vector<AllocationOption>& options) {
  std::vector<size_t> order(options.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(options[a].n_bytes, options[a].loss) < std::pair(options[b].n_bytes, options[b].loss);
  });
  auto gain = [&](size_t from, size_t to) {
    return (options[from].loss - options[to].loss) / double(options[to].n_bytes - options[from].n_bytes);
  };
  std::vector<size_t> hull;
  for (size_t next : order) {
    if (!hull.empty() && (options[next].loss >= options[hull.back()].loss || options[next].n_bytes == options[hull.back()].n_bytes))
      continue;
    while (hull.size() >= 2 && gain(hull.back(), next) >= gain(hull[hull.size() - 2], hull.back())) hull.pop_back();
    hull.push_back(next);
  }
  return hull;
}

}  // namespace

std::vector<size_t> allocate(const std::vector<AllocationGroup>& groups, uint64_t budget, uint64_t* minimum) {
  std::vector<std::vector<size_t>> hulls;
  std::vector<size_t> at(groups.size(), 0);  // position on the group's hull
  uint64_t used = 0;
  for (const AllocationGroup& group : groups) {
    hulls.push_back(hull_of(group.options));
    used += group.options[hulls.back()[0]].n_bytes;
  }
  if (minimum) *minimum = used;
  if (used > budget) return {};
  for (;;) {
    size_t best = groups.size();
    double best_gain = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      if (at[g] + 1 >= hulls[g].size()) continue;
      const AllocationOption &now = groups[g].options[hulls[g][at[g]]], &next = groups[g].options[hulls[g][at[g] + 1]];
      if (used - now.n_bytes + next.n_bytes > budget) continue;
      const double gain = (now.loss - next.loss) / double(next.n_bytes - now.n_bytes);
      if (gain > best_gain) {
        best_gain = gain;
        best = g;
      }
    }
    if (best == groups.size()) break;
    used += groups[best].options[hulls[best][at[best] + 1]].n_bytes - groups[best].options[hulls[best][at[best]]].n_bytes;
    ++at[best];
  }
  std::vector<size_t> choice;
  for (size_t g = 0; g < groups.size(); ++g) choice.push_back(hulls[g][at[g]]);
  return choice;
}

}  // namespace sb
