// A line on the terminal that says how far a long piece of work is.
#pragma once

#include <string>

namespace cli {

class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  /// `fraction` 0 … 1.
  void show(double fraction);
  void done() const;

 private:
  std::string what_;
  double began_, next_ = 0;  // seconds; the next fraction to print where there is no terminal
};

}  // namespace cli
