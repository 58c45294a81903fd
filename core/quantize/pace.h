// How much of a long piece of work is left, in time: amounts are known before, rates are measured as it goes.
#pragma once

#include <array>
#include <cstddef>

namespace sb {

/// Kinds of work, which go at rates of their own.
enum class Work {
  kRun,     // the model over the text: products of a weight and a token
  kSums,    // moments: products of two inputs
  kSearch,  // encoding: weights, counted as coded4's (search_cost)
  kProbe,   // sensitivity: products of a weight and a token
};
inline constexpr size_t kWorkCount = 4;

class Pace {
 public:
  void expect(Work kind, double amount) { total_[size_t(kind)] += amount; }
  /// What was expected and is not done will not come.
  void drop_rest() { total_ = done_; }
  /// `ms`: 0 for what an earlier process did.
  void done(Work kind, double amount, double ms);
  /// 0 … 1, in time at the rates seen so far.
  double fraction() const;
  /// Milliseconds; −1 before anything was measured.
  double ms_left() const;

 private:
  double rate(size_t kind) const;
  std::array<double, kWorkCount> total_{}, done_{}, measured_{}, ms_{};
};

/// A weight's search in a format, in units of one in coded4.
double search_cost(const char* format);

}  // namespace sb
