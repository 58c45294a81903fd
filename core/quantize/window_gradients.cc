#include "quantize/window_gradients.h"

#include <algorithm>

#include "formats/decode.h"

namespace sb {
namespace {

/// Σ over tokens of a column's x · dx in the rotated basis, which is how the loss changes with the logarithm of its scale.
void add_column_gradients(const PlaneMatrix& m, const TensorView& x, const TensorView& dx, std::vector<float>& gradient, ThreadPool& pool) {
  const int64_t k = x.shape[1], block = m.hadamard ? m.hadamard : k, n_blocks = k / block;
  pool.run([&](int thread) {
    std::vector<float> a(static_cast<size_t>(block)), b(static_cast<size_t>(block));
    for (int64_t first = thread * block; first < n_blocks * block; first += pool.size() * block) {
      for (int64_t t = 0; t < x.shape[0]; ++t) {
        const float *from = x.row<float>(t) + first, *gradients = dx.row<float>(t) + first;
        for (int64_t i = 0; i < block; ++i) {
          const float sign = m.hadamard ? plane_sign(m.signs, first + i) : 1.0f;
          a[size_t(i)] = sign * from[i];
          b[size_t(i)] = sign * gradients[i];
        }
        if (m.hadamard) {
          hadamard(a.data(), block, m.hadamard);
          hadamard(b.data(), block, m.hadamard);
        }
        for (int64_t i = 0; i < block; ++i) gradient[size_t(first + i)] += a[size_t(i)] * b[size_t(i)];
      }
    }
  });
}

}  // namespace

std::vector<float>& WindowGradients::sums_of(TunedNumbers& numbers) {
  std::vector<float>& sums = sums_[&numbers];
  if (sums.empty()) sums.assign(numbers.gradient.size(), 0.0f);
  return sums;
}

std::span<float> WindowGradients::vector(std::string_view name) {
  TunedNumbers* numbers = model_.vector(name);
  return numbers ? std::span(sums_of(*numbers)) : std::span<float>();
}

void WindowGradients::product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) {
  auto [matrix, first_row] = model_.matrix_of(weight);
  if (!matrix) return;
  float* gradient = sums_of(matrix->row_scale).data() + first_row;
  constexpr int64_t kStrip = 64;
  const int64_t n = y.shape[1];
  pool.run([&](int thread) {
    for (int64_t begin = thread * kStrip; begin < n; begin += pool.size() * kStrip) {
      const int64_t end = std::min(n, begin + kStrip);
      for (int64_t t = 0; t < y.shape[0]; ++t) {
        const float *a = y.row<float>(t), *b = dy.row<float>(t);
        if (bias.data) {
          for (int64_t i = begin; i < end; ++i) gradient[i] += (a[i] - bias.row<float>(0)[i]) * b[i];
        } else {
          for (int64_t i = begin; i < end; ++i) gradient[i] += a[i] * b[i];
        }
      }
    }
  });
}

void WindowGradients::input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) {
  TunedMatrix* matrix = nullptr;
  for (std::string_view weight : weights) {
    TunedMatrix* found = model_.matrix_of(weight).first;
    if (!found || (matrix && matrix != found)) return;
    matrix = found;
  }
  if (matrix) add_column_gradients(matrix->group->matrix, x, dx, sums_of(matrix->column_scale), pool);
}

void WindowGradients::add_to_model() const {
  for (const auto& [numbers, sums] : sums_) {
    for (size_t i = 0; i < sums.size(); ++i) numbers->gradient[i] += sums[i];
  }
}

}  // namespace sb
