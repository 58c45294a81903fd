#include "runtime/draft.h"

#include <algorithm>

namespace sb {

std::span<const int32_t> draft(std::span<const int32_t> ids, int64_t n) {
  const int64_t end = int64_t(ids.size());
  for (const int64_t n_alike : {3, 2}) {
    for (int64_t next = end - 1; n > 0 && next >= n_alike; --next) {
      if (std::equal(ids.end() - n_alike, ids.end(), ids.begin() + next - n_alike))
        return ids.subspan(size_t(next), size_t(std::min(n, end - next)));
    }
  }
  return {};
}

}  // namespace sb
