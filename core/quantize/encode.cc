#include "quantize/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/cpu/quantize_kernels.h"
#include "formats/decode.h"

namespace sb {
namespace {

constexpr int64_t kBatch = 128;  // columns whose feedback from those before is gathered at once
// Of the mean of the moment's diagonal: what keeps directions that the calibration text hardly showed from being given away.
constexpr double kDamping = 0.025;
// Column scales of columns that hold nothing (padding): anything but zero, so that a division by it is harmless.
constexpr float kLeastScale = 1e-4f;

/// A counter through a strong mixer (SplitMix64, Steele et al. 2014): signs depend on the seed and the place alone.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void rotate_rows(std::vector<float>& matrix, int64_t n_rows, int64_t k, const std::vector<uint32_t>& signs, int block) {
  for (int64_t r = 0; r < n_rows; ++r) {
    float* row = matrix.data() + r * k;
    for (int64_t i = 0; i < k; ++i) row[i] *= plane_sign(signs.data(), i);
    hadamard(row, k, block);
  }
}

void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
  constexpr int64_t kBlock = 32;
  for (int64_t r = 0; r < rows; r += kBlock) {
    for (int64_t c = 0; c < columns; c += kBlock) {
      for (int64_t i = r; i < std::min(rows, r + kBlock); ++i) {
        for (int64_t j = c; j < std::min(columns, c + kBlock); ++j) to[j * rows + i] = from[i * columns + j];
      }
    }
  }
}

/// A = Uᵀ·U in place, in the upper triangle; blocks of rows, so that nearly all of the work is a matrix product.
bool cholesky_upper(std::vector<float>& a, int64_t k) {
  constexpr int64_t kBlock = 64;
  const QuantizeKernels& kernels = quantize_kernels();
  for (int64_t begin = 0; begin < k; begin += kBlock) {
    const int64_t end = std::min(k, begin + kBlock);
    for (int64_t i = begin; i < end; ++i) {
      // Rows of this block that lie above i have been subtracted already from row i (right-looking inside the block).
      const double pivot = double(a[size_t(i * k + i)]);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      const float root = float(std::sqrt(pivot)), inverse = 1 / root;
      float* row = a.data() + i * k;
      row[i] = root;
      for (int64_t j = i + 1; j < k; ++j) row[j] *= inverse;
      for (int64_t r = i + 1; r < end; ++r) kernels.axpy(-row[r], row + r, a.data() + r * k + r, k - r);
    }
    // A22 −= U12ᵀ·U12, upper triangle in strips.
    for (int64_t r = end; r < k; r += kBlock) {
      kernels.product({.a = a.data() + begin * k + r,
                       .a_row = 1,
                       .a_step = k,
                       .b = a.data() + begin * k + r,
                       .b_row = k,
                       .c = a.data() + r * k + r,
                       .c_row = k,
                       .n_sum = end - begin,
                       .n_rows = std::min(kBlock, k - r),
                       .n_columns = k - r,
                       .sign = -1});
    }
  }
  return true;
}

/// Nearest mid-rise level of a plain code: its bits, plane 0 the most significant.
void nearest_levels(const PlaneCode& code, const float* target, int64_t n, uint8_t* bits, float* coded) {
  const float step = 2 * code.filter[0][size_t(code.n_planes - 1)];  // Δ
  const int half = 1 << (code.n_planes - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int level = std::clamp(int(std::floor(target[i] / step)), -half, half - 1);
    coded[i] = (float(level) + 0.5f) * step;
    const int offset = level + half;
    int planes = 0;
    for (int p = 0; p < code.n_planes; ++p) planes |= (offset >> (code.n_planes - 1 - p) & 1) << p;
    bits[i] = uint8_t(planes);
  }
}

}  // namespace

std::vector<float> state_values(const PlaneCode& code) {
  std::vector<float> values(size_t(1) << kStateBits);
  for (size_t state = 0; state < values.size(); ++state) {
    float v = 0;
    for (int q = 0; q < code.n_taps; ++q) {
      for (int p = 0; p < code.n_planes; ++p)
        v += (state >> (q * code.n_planes + p) & 1) ? code.filter[size_t(q)][size_t(p)] : -code.filter[size_t(q)][size_t(p)];
    }
    values[state] = v;
  }
  return values;
}

bool RotatedMatrix::rotate(const float* weights, int64_t n, int64_t k, const float* moment, uint64_t seed, RotatedMatrix& out) {
  RotatedMatrix& m = out;
  m.n_rows = plane_rows(n);
  m.n_columns = plane_columns(k);
  m.segment = plane_segment(m.n_rows);
  m.hadamard_block = plane_hadamard(k);
  const int64_t wide = m.n_columns;

  std::vector<float> rows(size_t(m.n_rows * wide));
  for (int64_t r = 0; r < n; ++r) std::copy_n(weights + r * k, k, rows.begin() + r * wide);
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += double(moment[i * k + i]) / double(k);
  if (!(mean > 0)) mean = 1;  // inputs that were always zero: any moment will do
  m.moment.assign(size_t(wide * wide), 0.0f);
  for (int64_t i = 0; i < k; ++i) std::copy_n(moment + i * k, k, m.moment.begin() + i * wide);
  for (int64_t i = 0; i < wide; ++i) m.moment[size_t(i * wide + i)] += float((i < k ? kDamping : 1.0) * mean);

  m.signs.clear();
  if (m.hadamard_block) {
    m.signs.resize(size_t(wide / 32));
    for (size_t i = 0; i < m.signs.size(); ++i) m.signs[i] = uint32_t(mix(seed * 0x100000001B3u + i) >> 32);
    rotate_rows(rows, m.n_rows, wide, m.signs, m.hadamard_block);
    // Both sides of H: its rows, then (it is symmetric) the rows of the transposed.
    rotate_rows(m.moment, wide, wide, m.signs, m.hadamard_block);
    std::vector<float> turned(m.moment.size());
    transpose(m.moment.data(), wide, wide, turned.data());
    rotate_rows(turned, wide, wide, m.signs, m.hadamard_block);
    for (int64_t i = 0; i < wide; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const float both = 0.5f * (turned[size_t(i * wide + j)] + turned[size_t(j * wide + i)]);
        m.moment[size_t(i * wide + j)] = m.moment[size_t(j * wide + i)] = both;
      }
    }
  }
  m.weights.resize(rows.size());
  transpose(rows.data(), m.n_rows, wide, m.weights.data());

  m.feedback = m.moment;
  if (!cholesky_upper(m.feedback, wide)) return false;
  m.pivots.resize(size_t(wide));
  for (int64_t i = 0; i < wide; ++i) {
    float* row = m.feedback.data() + i * wide;
    const float pivot = row[i];
    m.pivots[size_t(i)] = pivot * pivot;
    for (int64_t j = i; j < wide; ++j) row[j] /= pivot;
  }
  return true;
}

bool correct(std::vector<float>& weights, int64_t n, int64_t k, const float* moment, const Correction& correction) {
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += double(moment[i * k + i]) / double(k);
  std::vector<float> upper(moment, moment + k * k);
  for (int64_t i = 0; i < k; ++i) upper[size_t(i * k + i)] += float(kDamping * mean);
  if (!cholesky_upper(upper, k)) return false;
  std::vector<float> lower(upper.size());  // Uᵀ
  transpose(upper.data(), k, k, lower.data());

  const QuantizeKernels& kernels = quantize_kernels();
  std::vector<float> lost(size_t(k * k)), y(size_t(n * k), 0.0f);
  for (int64_t i = 0; i < k * k; ++i) lost[size_t(i)] = float(correction.input_share) * (correction.cross[i] - moment[i]);
  kernels.product({.a = weights.data(),
                   .a_row = k,
                   .a_step = 1,
                   .b = lost.data(),
                   .b_row = k,
                   .c = y.data(),
                   .c_row = k,
                   .n_sum = k,
                   .n_rows = n,
                   .n_columns = k});
  if (correction.stream) kernels.axpy(float(correction.stream_share), correction.stream, y.data(), n * k);

  // y·(UᵀU)⁻¹ for all rows at once, in blocks of columns: y·U⁻¹ from the first on, then ·U⁻ᵀ from the last back.
  constexpr int64_t kBlock = 64;
  auto subtract = [&](int64_t from, int64_t n_from, const float* matrix, int64_t to, int64_t n_to) {
    kernels.product({.a = y.data() + from,
                     .a_row = k,
                     .a_step = 1,
                     .b = matrix + from * k + to,
                     .b_row = k,
                     .c = y.data() + to,
                     .c_row = k,
                     .n_sum = n_from,
                     .n_rows = n,
                     .n_columns = n_to,
                     .sign = -1});
  };
  for (int64_t begin = 0; begin < k; begin += kBlock) {
    const int64_t end = std::min(k, begin + kBlock);
    if (begin) subtract(0, begin, upper.data(), begin, end - begin);
    for (int64_t r = 0; r < n; ++r) {
      float* row = y.data() + r * k;
      for (int64_t i = begin; i < end; ++i) {
        row[i] /= upper[size_t(i * k + i)];
        kernels.axpy(-row[i], upper.data() + i * k + i + 1, row + i + 1, end - i - 1);
      }
    }
  }
  for (int64_t end = k; end > 0;) {
    const int64_t begin = (end - 1) / kBlock * kBlock;
    if (end < k) subtract(end, k - end, lower.data(), begin, end - begin);
    for (int64_t r = 0; r < n; ++r) {
      float* row = y.data() + r * k;
      for (int64_t i = end - 1; i >= begin; --i) {
        row[i] /= lower[size_t(i * k + i)];
        kernels.axpy(-row[i], lower.data() + i * k + begin, row + begin, i - begin);
      }
    }
    end = begin;
  }
  kernels.axpy(1, y.data(), weights.data(), n * k);
  return true;
}

void encode(const RotatedMatrix& m, const float* target, const PlaneCode& code, const Team& team, EncodeWork& work, EncodedSet& out) {
  const int64_t n = m.n_rows, k = m.n_columns, n_words = k / 32;
  const QuantizeKernels& kernels = quantize_kernels();
  if (!target) target = m.weights.data();
  if (team.thread == 0) {
    out.code = code;
    out.words.assign(size_t(n * code.n_planes * n_words), 0);
    out.row_scale.assign(size_t(n), 0);
    out.column_scale.assign(size_t(k), 0);
    work.errors.resize(size_t(k * n));
    work.column_squares.assign(2 * size_t(team.n_threads), 0);
    work.error.assign(size_t(team.n_threads), 0);
    work.power.assign(size_t(team.n_threads), 0);
  }
  team.meet();

  // This thread's segments; rows of different segments only share the column scales.
  const int64_t n_segments = n / m.segment;
  const int64_t row0 = n_segments * team.thread / team.n_threads * m.segment;
  const int64_t n_own = n_segments * (team.thread + 1) / team.n_threads * m.segment - row0;

  std::vector<double> squares(size_t(n_own), 0);
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t i = 0; i < n_own; ++i) squares[size_t(i)] += double(target[j * n + row0 + i]) * double(target[j * n + row0 + i]);
  }
  std::vector<float> scale(squares.size()), inverse(squares.size());
  for (int64_t i = 0; i < n_own; ++i) {
    const uint16_t half = float_to_half(float(std::sqrt(squares[size_t(i)] / double(k))));
    out.row_scale[size_t(row0 + i)] = half;
    scale[size_t(i)] = half_to_float(half);
    inverse[size_t(i)] = scale[size_t(i)] > 0 ? 1 / scale[size_t(i)] : 0;
  }
  // Rows of zeros (padding) have no say in the column scales.
  work.power[size_t(team.thread)] = double(std::count_if(inverse.begin(), inverse.end(), [](float v) { return v > 0; }));
  team.meet();
  double n_live = 0;
  for (int i = 0; i < team.n_threads; ++i) n_live += work.power[size_t(i)];
  auto normalised = [&](int64_t j, int64_t i) { return target[j * n + row0 + i] * inverse[size_t(i)]; };

  const std::vector<float> values = state_values(code);
  std::vector<float> batch(size_t(kBatch * n_own)), coded(squares.size()), t(squares.size());
  std::vector<uint8_t> bits(squares.size());
  std::vector<float> history(size_t(viterbi_scratch_floats(code.n_planes, m.segment)));
  std::vector<double> row_error(squares.size(), 0);  // e H eᵀ of each row = Σ_k D[k] · (t − c·v)²
  float* errors = work.errors.data() + row0;         // E[k][i] at errors[k·n + i]
  for (int64_t k1 = k; k1 > 0; k1 -= kBatch) {
    const int64_t k0 = std::max<int64_t>(0, k1 - kBatch);
    for (int64_t j = k0; j < k1; ++j) {
      for (int64_t i = 0; i < n_own; ++i) batch[size_t((j - k0) * n_own + i)] = normalised(j, i);
    }
    if (k1 < k) {
      kernels.product({.a = m.feedback.data() + k0 * k + k1,
                       .a_row = k,
                       .a_step = 1,
                       .b = errors + k1 * n,
                       .b_row = n,
                       .c = batch.data(),
                       .c_row = n_own,
                       .n_sum = k - k1,
                       .n_rows = k1 - k0,
                       .n_columns = n_own});
    }
    for (int64_t j = k1 - 1; j >= k0; --j) {
      float* target_column = batch.data() + (j - k0) * n_own;
      if (j + 1 < k1) {
        kernels.product({.a = m.feedback.data() + j * k + j + 1,
                         .a_row = k,
                         .a_step = 1,
                         .b = errors + (j + 1) * n,
                         .b_row = n,
                         .c = target_column,
                         .c_row = n_own,
                         .n_sum = k1 - j - 1,
                         .n_rows = 1,
                         .n_columns = n_own});
      }
      double sum = 0;
      for (int64_t i = 0; i < n_own; ++i) sum += double(target_column[i]) * double(target_column[i]);
      // Two places in turn: one is read while the next column's is written.
      double* parts = work.column_squares.data() + (j % 2) * team.n_threads;
      parts[team.thread] = sum;
      team.meet();
      double total = 0;
      for (int i = 0; i < team.n_threads; ++i) total += parts[i];
      const uint16_t half = float_to_half(std::max(kLeastScale, float(std::sqrt(total / std::max(1.0, n_live)))));
      const float c = half_to_float(half);
      if (team.thread == 0) out.column_scale[size_t(j)] = half;

      for (int64_t i = 0; i < n_own; ++i) t[size_t(i)] = target_column[i] / c;
      if (code.n_taps == 1) {
        nearest_levels(code, t.data(), n_own, bits.data(), coded.data());
      } else {
        kernels.viterbi({.n_planes = code.n_planes,
                         .values = values.data(),
                         .target = t.data(),
                         .segment = m.segment,
                         .n_segments = n_own / m.segment,
                         .history = history.data(),
                         .bits = bits.data(),
                         .coded = coded.data()});
      }
      const double pivot = double(m.pivots[size_t(j)]);
      const uint32_t bit = 1u << plane_bit(j);
      for (int64_t i = 0; i < n_own; ++i) {
        const float approximated = c * coded[size_t(i)];
        const double off = double(target_column[i]) - double(approximated);
        row_error[size_t(i)] += pivot * off * off;
        errors[j * n + i] = normalised(j, i) - approximated;
        uint32_t* words = out.words.data() + (row0 + i) * code.n_planes * n_words + j / 32;
        for (int p = 0; p < code.n_planes; ++p) {
          if (bits[size_t(i)] >> p & 1) words[p * n_words] |= bit;
        }
      }
    }
  }
  team.meet();  // column scales are complete

  // sv[r] ← sv[r] · (w H ŵᵀ) / (ŵ H ŵᵀ), a block of rows at a time.
  PlaneMatrix matrix{n, k, m.segment, 0, nullptr, 1, 1, {out.view(), {}}};
  constexpr int64_t kRows = 32;
  std::vector<float> approximated(size_t(kRows * k)), met(size_t(kRows * k));
  double error = 0, power = 0;
  for (int64_t r = 0; r < n_own; r += kRows) {
    const int64_t rows = std::min(kRows, n_own - r);
    for (int64_t i = 0; i < rows; ++i) {
      float* row = approximated.data() + i * k;
      decode_plane_values(matrix, 0, row0 + r + i, row);
      for (int64_t j = 0; j < k; ++j) row[j] *= half_to_float(out.column_scale[size_t(j)]);
    }
    std::fill(met.begin(), met.end(), 0.0f);
    kernels.product({.a = approximated.data(),
                     .a_row = k,
                     .a_step = 1,
                     .b = m.moment.data(),
                     .b_row = k,
                     .c = met.data(),
                     .c_row = k,
                     .n_sum = k,
                     .n_rows = rows,
                     .n_columns = k});
    for (int64_t i = 0; i < rows; ++i) {
      double both = 0, own = 0;  // w H ŵᵀ, ŵ H ŵᵀ
      for (int64_t j = 0; j < k; ++j) {
        const double a = double(approximated[size_t(i * k + j)]), h = double(met[size_t(i * k + j)]);
        both += (a + double(errors[j * n + r + i])) * h;
        own += a * h;
      }
      const double before = double(scale[size_t(r + i)]);
      const uint16_t half = float_to_half(float(own > 0 ? before * both / own : before));
      out.row_scale[size_t(row0 + r + i)] = half;
      const double after = double(half_to_float(half));
      const double whole = 2 * both - own + row_error[size_t(r + i)];  // w H wᵀ
      power += before * before * whole;
      error += before * before * whole - 2 * before * after * both + after * after * own;
    }
  }
  work.error[size_t(team.thread)] = error;
  work.power[size_t(team.thread)] = power;
  team.meet();
  if (team.thread == 0) {
    out.error = out.power = 0;
    for (int i = 0; i < team.n_threads; ++i) {
      out.error += work.error[size_t(i)];
      out.power += work.power[size_t(i)];
    }
  }
  team.meet();
}

std::vector<float> residual(const RotatedMatrix& m, const EncodedSet& base) {
  PlaneMatrix matrix{m.n_rows, m.n_columns, m.segment, 0, nullptr, 1, 1, {base.view(), {}}};
  std::vector<float> left(m.weights);
  std::vector<float> row(static_cast<size_t>(m.n_columns));
  for (int64_t r = 0; r < m.n_rows; ++r) {
    decode_plane_row(matrix, r, row.data());
    for (int64_t j = 0; j < m.n_columns; ++j) left[size_t(j * m.n_rows + r)] -= row[size_t(j)];
  }
  return left;
}

}  // namespace sb
