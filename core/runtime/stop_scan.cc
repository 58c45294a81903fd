#include "runtime/stop_scan.h"

#include <algorithm>
#include <utility>

namespace sb {

StopScan::StopScan(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string StopScan::push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  size_t stop_at = std::string::npos;
  for (const std::string& stop : stops_) stop_at = std::min(stop_at, held_.find(stop));
  if (stop_at != std::string::npos) {
    stopped_ = true;
    return held_.substr(0, stop_at);
  }
  // Hold back the longest tail that is the beginning of a stop text.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string StopScan::finish() {
  if (stopped_) return "";
  return std::exchange(held_, {});
}

}  // namespace sb
