// A line on the terminal that says how far a long piece of work is.
#pragma once

#include <optional>
#include <string>

namespace cli {

class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  /// `fraction` 0 … 1; `seconds_left`: where the work itself knows, else what has passed says.
  void show(double fraction, std::optional<double> seconds_left = {});
  void done() const;

 private:
  std::string what_;
  double began_, first_ = -1, next_ = 0;  // seconds; the first fraction shown; the next fraction to print where there is no terminal
};

}  // namespace cli
