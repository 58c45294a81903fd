// For tests only: tensors as other quantisers write them, and the weights that they stand for, in double, by the formulas that their papers
// and packers give and by no code of io.
#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "formats/decode.h"
#include "io/synthetic_files.h"

namespace sb::testing_files {

struct ForeignTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  std::string bytes;
};
inline std::string safetensors_of(const std::vector<ForeignTensor>& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const ForeignTensor& t : tensors) entries.push_back({t.name, t.dtype, t.shape, std::as_bytes(std::span(t.bytes))});
  return text_of(write_safetensors(entries));
}

/// Codes q [N, K] of 4 bits with scales and zeros [groups, N] and the group of every input; they may be changed before they are packed.
struct Int4Source {
  int64_t n = 0, k = 0, n_groups = 1;
  std::vector<int> q, zeros;
  std::vector<float> scales;
  std::vector<int32_t> group_of;

  Int4Source(int64_t rows, int64_t columns, int64_t group_size, uint32_t seed, bool is_symmetric) : n(rows), k(columns) {
    std::mt19937 random(seed);
    n_groups = group_size ? (k + group_size - 1) / group_size : 1;
    for (int64_t i = 0; i < n * k; ++i) q.push_back(int(random() % 16));
    for (int64_t i = 0; i < n_groups * n; ++i) {
      zeros.push_back(is_symmetric ? 8 : int(random() % 16));
      scales.push_back(half_to_float(float_to_half(0.002f + float(random() % 1000) * 2e-5f)));
    }
    for (int64_t i = 0; i < k; ++i) group_of.push_back(int32_t(group_size ? i / group_size : 0));
  }
  /// w = s·(q − z), [N, K].
  std::vector<double> weights() const {
    std::vector<double> w;
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k; ++c) {
        const size_t at = size_t(group_of[size_t(c)] * n + r);
        w.push_back(double(scales[at]) * (q[size_t(r * k + c)] - zeros[at]));
      }
    }
    return w;
  }
  std::string scale_bytes(Dtype dtype) const {
    std::string out;
    for (const float s : scales) {
      if (dtype == Dtype::kF32) out += raw(s);
      if (dtype == Dtype::kF16) out += raw(float_to_half(s));
      if (dtype == Dtype::kBF16) out += raw(uint16_t(__builtin_bit_cast(uint32_t, s) >> 16));
    }
    return out;
  }
  /// AutoGPTQ's pack(): eight inputs a word for the codes, eight outputs for the zeros, which are stored less `less`.
  std::vector<ForeignTensor> gptq(const std::string& x, int less, bool with_order, Dtype scale_type = Dtype::kF16) const {
    std::vector<uint32_t> words(size_t(k / 8 * n), 0), zero_words(size_t(n_groups * n / 8), 0);
    for (int64_t c = 0; c < k; ++c) {
      for (int64_t r = 0; r < n; ++r) words[size_t(c / 8 * n + r)] |= uint32_t(q[size_t(r * k + c)]) << (c % 8 * 4);
    }
    for (int64_t g = 0; g < n_groups; ++g) {
      for (int64_t r = 0; r < n; ++r)
        zero_words[size_t((g * n + r) / 8)] |= (uint32_t(zeros[size_t(g * n + r)] - less) & 15) << (r % 8 * 4);
    }
    std::vector<ForeignTensor> out = {{x + ".qweight", Dtype::kI32, {k / 8, n}, raw_list(words)},
                                      {x + ".qzeros", Dtype::kI32, {n_groups, n / 8}, raw_list(zero_words)},
                                      {x + ".scales", scale_type, {n_groups, n}, scale_bytes(scale_type)}};
    if (with_order) out.push_back({x + ".g_idx", Dtype::kI32, {k}, raw_list(group_of)});
    return out;
  }
  /// AutoAWQ's WQLinear_GEMM.from_linear(): eight outputs a word, of which word i's nibbles have outputs 8i + order[0 … 7].
  std::vector<ForeignTensor> awq(const std::string& x) const {
    static constexpr int kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
    std::vector<uint32_t> words(size_t(k * n / 8), 0), zero_words(size_t(n_groups * n / 8), 0);
    for (int64_t column = 0; column < n / 8; ++column) {
      for (int i = 0; i < 8; ++i) {
        const int64_t r = column * 8 + kOrder[i];
        for (int64_t c = 0; c < k; ++c) words[size_t(c * (n / 8) + column)] |= uint32_t(q[size_t(r * k + c)]) << (4 * i);
        for (int64_t g = 0; g < n_groups; ++g) zero_words[size_t(g * (n / 8) + column)] |= uint32_t(zeros[size_t(g * n + r)]) << (4 * i);
      }
    }
    return {{x + ".qweight", Dtype::kI32, {k, n / 8}, raw_list(words)},
            {x + ".qzeros", Dtype::kI32, {n_groups, n / 8}, raw_list(zero_words)},
            {x + ".scales", Dtype::kF16, {n_groups, n}, scale_bytes(Dtype::kF16)}};
  }
};

/// −1, 0, 1 [N, K] with one scale.
struct TernarySource {
  int64_t n = 0, k = 0;
  std::vector<int> t;
  float weight_scale = 1;

  TernarySource(int64_t rows, int64_t columns, float scale, uint32_t seed) : n(rows), k(columns), weight_scale(scale) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < n * k; ++i) t.push_back(int(random() % 3) - 1);
  }
  /// transformers' pack_weights(): a quarter of the rows after the other in pairs of bits.
  std::vector<ForeignTensor> bitnet(const std::string& x, Dtype scale_type) const {
    std::string bytes(size_t(n / 4 * k), '\0');
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < k; ++c) bytes[size_t(r % (n / 4) * k + c)] |= char((t[size_t(r * k + c)] + 1) << (2 * (r / (n / 4))));
    }
    const std::string scale =
        scale_type == Dtype::kF32 ? raw(weight_scale) : raw(uint16_t(__builtin_bit_cast(uint32_t, weight_scale) >> 16));
    return {{x + ".weight", Dtype::kU8, {n / 4, k}, bytes}, {x + ".weight_scale", scale_type, {1}, scale}};
  }
};

}  // namespace sb::testing_files
