#include "quantize/encode.h"

#include <algorithm>
#include <atomic>
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

/// Rows times diag(su), then Had.
void rotate_rows(float* rows, int64_t n_rows, int64_t k, const std::vector<uint32_t>& signs, int block) {
  for (int64_t r = 0; r < n_rows; ++r) {
    float* row = rows + r * k;
    for (int64_t i = 0; i < k; ++i) row[i] *= plane_sign(signs.data(), i);
    hadamard(row, k, block);
  }
}

/// fn(begin, end) over runs of at most `grain` of n items, as threads are free.
template <class Fn>
void each_run(int64_t n, int64_t grain, ThreadPool& pool, Fn fn) {
  std::atomic<int64_t> next{0};
  pool.run([&](int) {
    for (int64_t begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < n;) fn(begin, std::min(n, begin + grain));
  });
}

/// A square matrix, turned in place.
void transpose(float* a, int64_t k) {
  constexpr int64_t kBlock = 32;
  for (int64_t r = 0; r < k; r += kBlock) {
    for (int64_t c = r; c < k; c += kBlock) {
      for (int64_t i = r; i < std::min(k, r + kBlock); ++i) {
        for (int64_t j = std::max(c, i + 1); j < std::min(k, c + kBlock); ++j) std::swap(a[i * k + j], a[j * k + i]);
      }
    }
  }
}

/// A = Uᵀ·U in place, in the upper triangle; blocks of rows, so that nearly all of the work is a matrix product.
bool cholesky_upper(float* a, int64_t k, ThreadPool& pool) {
  constexpr int64_t kBlock = 64;
  const QuantizeKernels& kernels = quantize_kernels();
  for (int64_t begin = 0; begin < k; begin += kBlock) {
    const int64_t end = std::min(k, begin + kBlock);
    for (int64_t i = begin; i < end; ++i) {
      // Rows of this block that lie above i have been subtracted already from row i (right-looking inside the block).
      float* row = a + i * k;
      const double pivot = double(row[i]);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      const float root = float(std::sqrt(pivot)), inverse = 1 / root;
      row[i] = root;
      for (int64_t j = i + 1; j < k; ++j) row[j] *= inverse;
      for (int64_t r = i + 1; r < end; ++r) kernels.axpy(-row[r], row + r, a + r * k + r, k - r);
    }
    // A22 −= U12ᵀ·U12, upper triangle in strips.
    each_run(k - end, kBlock, pool, [&](int64_t first, int64_t last) {
      const int64_t r = end + first;
      kernels.product({.a = a + begin * k + r,
                       .a_row = 1,
                       .a_step = k,
                       .b = a + begin * k + r,
                       .b_row = k,
                       .c = a + r * k + r,
                       .c_row = k,
                       .n_sum = end - begin,
                       .n_rows = last - first,
                       .n_columns = k - r,
                       .sign = -1});
    });
  }
  return true;
}

double mean_diagonal(const Booked<float>& moment, int64_t k) {
  double mean = 0;
  for (int64_t i = 0; i < k; ++i) mean += double(moment[size_t(i * k + i)]) / double(k);
  return mean;
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

void RotatedMatrix::shape(int64_t n, int64_t k, uint64_t seed) {
  n_rows = plane_rows(n);
  n_columns = plane_columns(k);
  segment = plane_segment(n_rows);
  hadamard_block = plane_hadamard(k);
  signs.clear();
  if (hadamard_block) {
    signs.resize(size_t(n_columns / 32));
    for (size_t i = 0; i < signs.size(); ++i) signs[i] = uint32_t(mix(seed * 0x100000001B3u + i) >> 32);
  }
}

void RotatedMatrix::take_rows(const RowSource& source, int64_t n, int64_t k, ThreadPool& pool) {
  weights.assign(size_t(n_rows * n_columns), 0.0f);
  constexpr int64_t kRows = 32;
  each_run(n, kRows, pool, [&](int64_t first, int64_t last) {
    std::vector<float> given(size_t((last - first) * k)), rows(size_t((last - first) * n_columns), 0.0f);
    source(first, last - first, given.data());
    for (int64_t r = 0; r < last - first; ++r) std::copy_n(given.data() + r * k, k, rows.data() + r * n_columns);
    if (hadamard_block) rotate_rows(rows.data(), last - first, n_columns, signs, hadamard_block);
    for (int64_t j = 0; j < n_columns; ++j) {
      for (int64_t r = 0; r < last - first; ++r) weights[size_t(j * n_rows + first + r)] = rows[size_t(r * n_columns + j)];
    }
  });
}

bool RotatedMatrix::take_moment(Booked<float> own, int64_t k, ThreadPool& pool) {
  const int64_t wide = n_columns;
  double mean = mean_diagonal(own, k);
  if (!(mean > 0)) mean = 1;  // inputs that were always zero: any moment will do
  if (wide == k) {
    moment = std::move(own);
  } else {
    moment.assign(size_t(wide * wide), 0.0f);
    for (int64_t i = 0; i < k; ++i) std::copy_n(own.begin() + i * k, k, moment.begin() + i * wide);
  }
  for (int64_t i = 0; i < wide; ++i) moment[size_t(i * wide + i)] += float((i < k ? kDamping : 1.0) * mean);

  if (hadamard_block) {
    // Both sides of H: its rows, then (it is symmetric) the rows of the transposed.
    for (int side = 0; side < 2; ++side) {
      if (side) transpose(moment.data(), wide);
      each_run(wide, 16, pool,
               [&](int64_t begin, int64_t end) { rotate_rows(moment.data() + begin * wide, end - begin, wide, signs, hadamard_block); });
    }
    for (int64_t i = 0; i < wide; ++i) {
      for (int64_t j = 0; j < i; ++j) {
        const float both = 0.5f * (moment[size_t(i * wide + j)] + moment[size_t(j * wide + i)]);
        moment[size_t(i * wide + j)] = moment[size_t(j * wide + i)] = both;
      }
    }
  }

  feedback = moment;
  if (!cholesky_upper(feedback.data(), wide, pool)) return false;
  pivots.resize(size_t(wide));
  for (int64_t i = 0; i < wide; ++i) {
    float* row = feedback.data() + i * wide;
    const float pivot = row[i];
    pivots[size_t(i)] = pivot * pivot;
    for (int64_t j = i; j < wide; ++j) row[j] /= pivot;
  }
  return true;
}

bool Correction::prepare(Moments& moments, int64_t k, ThreadPool& pool, Correction& out, double input_share, double stream_share) {
  out.k_ = k;
  out.lost_ = std::move(moments.cross);
  for (int64_t i = 0; i < k * k; ++i) out.lost_[size_t(i)] = float(input_share) * (out.lost_[size_t(i)] - moments.own[size_t(i)]);
  const double mean = mean_diagonal(moments.own, k);
  out.factor_ = std::move(moments.own);
  for (int64_t i = 0; i < k; ++i) out.factor_[size_t(i * k + i)] += float(kDamping * mean);
  if (!cholesky_upper(out.factor_.data(), k, pool)) return false;
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = i + 1; j < k; ++j) out.factor_[size_t(j * k + i)] = out.factor_[size_t(i * k + j)];
  }
  out.stream_ = moments.stream.empty() ? nullptr : &moments.stream;
  out.stream_share_ = stream_share;
  return true;
}

void Correction::apply(int64_t first, int64_t n, float* weights) const {
  const QuantizeKernels& kernels = quantize_kernels();
  const int64_t k = k_;
  const float* u = factor_.data();
  std::vector<float> y(size_t(n * k), 0.0f);
  kernels.product({.a = weights,
                   .a_row = k,
                   .a_step = 1,
                   .b = lost_.data(),
                   .b_row = k,
                   .c = y.data(),
                   .c_row = k,
                   .n_sum = k,
                   .n_rows = n,
                   .n_columns = k});
  if (stream_) kernels.axpy(float(stream_share_), stream_->data() + first * k, y.data(), n * k);

  // y·(UᵀU)⁻¹ for all rows at once, in blocks of columns: y·U⁻¹ from the first on, then ·U⁻ᵀ from the last back.
  constexpr int64_t kBlock = 64;
  auto subtract = [&](int64_t from, int64_t n_from, int64_t to, int64_t n_to) {
    kernels.product({.a = y.data() + from,
                     .a_row = k,
                     .a_step = 1,
                     .b = u + from * k + to,
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
    if (begin) subtract(0, begin, begin, end - begin);
    for (int64_t r = 0; r < n; ++r) {
      float* row = y.data() + r * k;
      for (int64_t i = begin; i < end; ++i) {
        row[i] /= u[i * k + i];
        kernels.axpy(-row[i], u + i * k + i + 1, row + i + 1, end - i - 1);
      }
    }
  }
  for (int64_t end = k; end > 0;) {
    const int64_t begin = (end - 1) / kBlock * kBlock;
    if (end < k) subtract(end, k - end, begin, end - begin);
    for (int64_t r = 0; r < n; ++r) {
      float* row = y.data() + r * k;
      for (int64_t i = end - 1; i >= begin; --i) {
        row[i] /= u[i * k + i];
        kernels.axpy(-row[i], u + i * k + begin, row + begin, i - begin);
      }
    }
    end = begin;
  }
  kernels.axpy(1, y.data(), weights, n * k);
}

namespace {

/// Threads that work on one matrix together: every one of them calls the function with its own number.
struct Team {
  int thread = 0, n_threads = 1;
  SpinBarrier* barrier = nullptr;  // of n_threads; unused when alone
  void meet() const {
    if (n_threads > 1) barrier->wait();
  }
};

/// Working memory of one encode(), shared by its team. Sums lie by segment, so that they do not depend on the number of threads.
struct EncodeWork {
  std::vector<float> row_scale;              // of the rows while they were encoded, before the refit [N]
  std::vector<double> column_squares;        // [2][segments]
  std::vector<double> error, power, n_live;  // [segments]
};

/// One thread's part of encode(). Leaves E in `target`: row i in units of work.row_scale[i]. `out` and `work` are set up by thread 0.
void encode_share(const RotatedMatrix& m, Booked<float>& target, const PlaneCode& code, std::span<const uint16_t> column_scale,
                  const Team& team, EncodeWork& work, EncodedSet& out) {
  const int64_t n = m.n_rows, k = m.n_columns, n_words = k / 32, n_segments = n / m.segment;
  const QuantizeKernels& kernels = quantize_kernels();
  if (team.thread == 0) {
    out.code = code;
    out.words.assign(size_t(n * code.n_planes * n_words), 0);
    out.row_scale.assign(size_t(n), 0);
    out.column_scale.assign(size_t(k), 0);
    work.row_scale.assign(size_t(n), 0);
    work.column_squares.assign(2 * size_t(n_segments), 0);
    for (auto* sums : {&work.error, &work.power, &work.n_live}) sums->assign(size_t(n_segments), 0);
  }
  team.meet();

  // This thread's segments; rows of different segments only share the column scales.
  const int64_t segment0 = n_segments * team.thread / team.n_threads, row0 = segment0 * m.segment;
  const int64_t n_own = n_segments * (team.thread + 1) / team.n_threads * m.segment - row0;
  auto each_segment = [&](auto fn) {
    for (int64_t s = 0; s < n_own / m.segment; ++s) fn(segment0 + s, s * m.segment);
  };
  auto sum_of = [&](const double* parts) {
    double sum = 0;
    for (int64_t s = 0; s < n_segments; ++s) sum += parts[s];
    return sum;
  };

  float* errors = target.data() + row0;  // E[k][i] at errors[k·n + i] once column k is encoded; before, the target
  std::vector<double> squares(size_t(n_own), 0);
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t i = 0; i < n_own; ++i) squares[size_t(i)] += double(errors[j * n + i]) * double(errors[j * n + i]);
  }
  float* scale = work.row_scale.data() + row0;
  std::vector<float> inverse(squares.size());
  for (int64_t i = 0; i < n_own; ++i) {
    const uint16_t half = float_to_half(float(std::sqrt(squares[size_t(i)] / double(k))));
    out.row_scale[size_t(row0 + i)] = half;
    scale[i] = half_to_float(half);
    inverse[size_t(i)] = scale[i] > 0 ? 1 / scale[i] : 0;
  }
  // Rows of zeros (padding) have no say in the column scales.
  each_segment([&](int64_t segment, int64_t first) {
    const auto begin = inverse.begin() + first;
    work.n_live[size_t(segment)] = double(std::count_if(begin, begin + m.segment, [](float v) { return v > 0; }));
  });
  team.meet();
  const double n_live = sum_of(work.n_live.data());
  auto normalised = [&](int64_t j, int64_t i) { return errors[j * n + i] * inverse[size_t(i)]; };

  auto own_scale = [&](int64_t j, const float* column) {
    // Two places in turn: one is read while the next column's is written.
    double* parts = work.column_squares.data() + (j % 2) * n_segments;
    each_segment([&](int64_t segment, int64_t first) {
      double sum = 0;
      for (int64_t i = first; i < first + m.segment; ++i) sum += double(column[i]) * double(column[i]);
      parts[segment] = sum;
    });
    team.meet();
    return float_to_half(std::max(kLeastScale, float(std::sqrt(sum_of(parts) / std::max(1.0, n_live)))));
  };

  const std::vector<float> values = state_values(code);
  std::vector<float> batch(size_t(kBatch * n_own)), coded(squares.size()), t(squares.size());
  std::vector<uint8_t> bits(squares.size());
  std::vector<float> history(size_t(viterbi_scratch_floats(code.n_planes, m.segment)));
  std::vector<double> row_error(squares.size(), 0);  // e H eᵀ of each row = Σ_k D[k] · (t − c·v)²
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
      const uint16_t half = column_scale.empty() ? own_scale(j, target_column) : column_scale[size_t(j)];
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
  for (int64_t r = 0; r < n_own; r += kRows) {  // a segment is a multiple of kRows
    const int64_t rows = std::min(kRows, n_own - r);
    double &error = work.error[size_t(segment0 + r / m.segment)], &power = work.power[size_t(segment0 + r / m.segment)];
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
      const double before = double(scale[r + i]);
      const uint16_t half = float_to_half(float(own > 0 ? before * both / own : before));
      out.row_scale[size_t(row0 + r + i)] = half;
      const double after = double(half_to_float(half));
      const double whole = 2 * both - own + row_error[size_t(r + i)];  // w H wᵀ
      power += before * before * whole;
      error += before * before * whole - 2 * before * after * both + after * after * own;
    }
  }
  team.meet();
  if (team.thread == 0) {
    out.error = sum_of(work.error.data());
    out.power = sum_of(work.power.data());
  }
  team.meet();
}

}  // namespace

EncodedSet encode(const RotatedMatrix& m, Booked<float> target, const PlaneCode& code, ThreadPool& pool,
                  std::span<const uint16_t> column_scale) {
  EncodedSet out;
  EncodeWork work;
  SpinBarrier barrier(pool.size());
  pool.run([&](int thread) { encode_share(m, target, code, column_scale, {thread, pool.size(), &barrier}, work, out); });
  return out;
}

bool encode_in_parts(const RowSource& source, int64_t n, int64_t k, uint64_t seed, Booked<float> moment, const PlaneCode& code,
                     PartRows rows, ThreadPool& pool, RotatedMatrix& m, EncodedSet& out) {
  m = {};
  m.shape(n, k, seed);
  const int64_t n_rows = m.n_rows, segment = m.segment, n_segments = n_rows / segment;
  if (!m.take_moment(std::move(moment), k, pool)) return false;
  // `count` segments: number i is the matrix's at(i).
  auto encode_segments = [&](int64_t count, const std::function<int64_t(int64_t)>& at, std::span<const uint16_t> column_scale) {
    m.n_rows = count * segment;
    m.take_rows(
        [&](int64_t first, int64_t n_wanted, float* to) {
          // Runs do not cross segments, which are multiples of them; rows that pad the last one are zeros.
          const int64_t row = at(first / segment) * segment + first % segment, n_there = std::clamp<int64_t>(n - row, 0, n_wanted);
          if (n_there) source(row, n_there, to);
          std::fill(to + n_there * k, to + n_wanted * k, 0.0f);
        },
        m.n_rows, k, pool);
    return encode(m, std::move(m.weights), code, pool, column_scale);
  };
  const int64_t n_sample = std::min(n_segments, std::max<int64_t>(1, rows.sample / segment));
  const EncodedSet sample = encode_segments(n_sample, [&](int64_t i) { return i * n_segments / n_sample; }, {});

  out = {};
  out.code = code;
  out.column_scale = sample.column_scale;
  out.words.reserve(size_t(n_rows * code.n_planes * (m.n_columns / 32)));
  const int64_t n_part = std::max<int64_t>(1, rows.part / segment);
  for (int64_t begin = 0; begin < n_segments; begin += n_part) {
    const EncodedSet part =
        encode_segments(std::min(n_part, n_segments - begin), [&](int64_t i) { return begin + i; }, sample.column_scale);
    out.words.insert(out.words.end(), part.words.begin(), part.words.end());
    out.row_scale.insert(out.row_scale.end(), part.row_scale.begin(), part.row_scale.end());
    out.error += part.error;
    out.power += part.power;
  }
  m.n_rows = n_rows;
  return true;
}

void subtract(const RotatedMatrix& m, const EncodedSet& base, Booked<float>& target, ThreadPool& pool) {
  const PlaneMatrix matrix{m.n_rows, m.n_columns, m.segment, 0, nullptr, 1, 1, {base.view(), {}}};
  pool.run([&](int thread) {
    std::vector<float> row(static_cast<size_t>(m.n_columns));
    // In shares of whole cache lines.
    const int64_t n_runs = m.n_rows / 16, end = n_runs * (thread + 1) / pool.size() * 16;
    for (int64_t r = n_runs * thread / pool.size() * 16; r < end; ++r) {
      decode_plane_values(matrix, 0, r, row.data());
      const float scale = half_to_float(base.row_scale[size_t(r)]);
      for (int64_t j = 0; j < m.n_columns; ++j) {
        target[size_t(j * m.n_rows + r)] -= scale * half_to_float(base.column_scale[size_t(j)]) * row[size_t(j)];
      }
    }
  });
}

}  // namespace sb
