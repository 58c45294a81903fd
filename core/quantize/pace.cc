#include "quantize/pace.h"

#include <algorithm>
#include <string_view>

namespace sb {
namespace {

// Milliseconds a unit on one core of a 2.4 GHz Zen 3. Only their proportions count, and only for kinds that have not been measured yet.
constexpr double kGuess[kWorkCount] = {4e-8, 4e-8, 3.3e-4, 4e-8};

}  // namespace

void Pace::done(Work kind, double amount, double ms) {
  const size_t i = size_t(kind);
  done_[i] += amount;
  total_[i] = std::max(total_[i], done_[i]);
  if (ms <= 0) return;
  measured_[i] += amount;
  ms_[i] += ms;
}

double Pace::rate(size_t kind) const {
  if (measured_[kind] > 0) return ms_[kind] / measured_[kind];
  double guessed = 0, seen = 0;
  for (size_t i = 0; i < kWorkCount; ++i) {
    guessed += kGuess[i] * measured_[i];
    seen += ms_[i];
  }
  return kGuess[kind] * (guessed > 0 ? seen / guessed : 1);
}

double Pace::fraction() const {
  double done = 0, total = 0;
  for (size_t i = 0; i < kWorkCount; ++i) {
    done += done_[i] * rate(i);
    total += total_[i] * rate(i);
  }
  return total > 0 ? done / total : 0;
}

double Pace::ms_left() const {
  double left = 0, seen = 0;
  for (size_t i = 0; i < kWorkCount; ++i) {
    left += (total_[i] - done_[i]) * rate(i);
    seen += ms_[i];
  }
  return seen > 0 ? left : -1;
}

double search_cost(const char* format) {
  // The search's rates relative to coded4's; levels without a search, and Q8_0, cost next to nothing.
  struct Row {
    std::string_view format;
    double cost;
  };
  static constexpr Row kRows[] = {{"coded2", 1.6}, {"coded3", 1.2}, {"coded4", 1}};
  for (const Row& row : kRows) {
    if (row.format == format) return row.cost;
  }
  return 0.05;
}

}  // namespace sb
