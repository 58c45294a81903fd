// Stop texts in a stream: text goes out only when no stop text can be beginning in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sb {

class StopScan {
 public:
  explicit StopScan(std::vector<std::string> stops);

  /// Takes new text, returns what may go out. After `stopped()` nothing more comes.
  std::string push(std::string_view text);
  /// What was held back, once the stream has ended without a stop.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace sb
