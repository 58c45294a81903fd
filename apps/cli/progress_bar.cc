#include "progress_bar.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>

namespace cli {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

ProgressBar::ProgressBar(std::string what) : what_(std::move(what)), began_(seconds()) {}

void ProgressBar::show(double fraction, std::optional<double> seconds_left) {
  if (!isatty(2) && fraction < next_) return;
  next_ = fraction + 0.02;
  if (first_ < 0) first_ = fraction;  // not 0 where an earlier run's work is gone on with
  const double passed = seconds() - began_, made = fraction - first_;
  const double left = seconds_left.value_or(made > 0.01 ? passed / made * (1 - fraction) : -1);
  std::string bar(size_t(std::lround(fraction * 30)), '#');
  bar.resize(30, '.');
  std::fprintf(stderr, "%s%-12s [%s] %3d %%  %s%s", isatty(2) ? "\r" : "", what_.c_str(), bar.c_str(), int(fraction * 100),
               left < 0 ? "…" : (std::to_string(int(left / 60)) + " min " + std::to_string(int(left) % 60) + " s left").c_str(),
               isatty(2) ? "   \033[K" : "\n");
}

void ProgressBar::done() const {
  std::fprintf(stderr, "%s%-12s done in %.0f s%s\n", isatty(2) ? "\r\033[K" : "", what_.c_str(), seconds() - began_, "");
}

}  // namespace cli
