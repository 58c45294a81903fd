#include "quantize/tune.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "formats/decode.h"
#include "quantize/evaluate.h"

namespace sb {
namespace {

constexpr int64_t kHeadTokens = 64;    // logits of so many positions at once
constexpr int64_t kMostHeldOut = 8;    // windows
constexpr int64_t kStepsAMeasure = 5;  // between looks at the held-out text
constexpr int64_t kPatience = 2;       // looks without a better one before it stops
constexpr int64_t kWarmSteps = 5;      // the rate rises over so many
constexpr double kMeanDecay = 0.9, kSquareDecay = 0.95, kLeastRoot = 1e-12;

TensorView vector_view(const std::vector<float>& v) {
  return {reinterpret_cast<const std::byte*>(v.data()), Dtype::kF32, {int64_t(v.size())}, int64_t(v.size()) * 4, nullptr, 0};
}

/// An order of n things that depends on seed and n alone (a linear congruence picks each next one).
std::vector<size_t> shuffled(const std::vector<size_t>& from, uint64_t seed) {
  std::vector<size_t> out = from;
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u;
  for (size_t i = out.size(); i > 1; --i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::swap(out[i - 1], out[size_t(state >> 33) % i]);
  }
  return out;
}

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

/// Row r of a matrix of one set, with scales of float32.
void decode_with(const PlaneMatrix& m, const std::vector<float>& row_scale, const std::vector<float>& column_scale, int64_t r, float* to,
                 std::vector<float>& row) {
  row.resize(size_t(m.n_columns));
  decode_plane_values(m, 0, r, row.data());
  for (size_t k = 0; k < row.size(); ++k) row[k] *= row_scale[size_t(r)] * column_scale[k];
  if (m.hadamard) {
    hadamard(row.data(), m.n_columns, m.hadamard);
    for (int64_t k = 0; k < m.n_columns; ++k) row[size_t(k)] *= plane_sign(m.signs, k);
  }
  std::copy(row.begin(), row.end(), to);
}

}  // namespace

void TunedNumbers::start(std::vector<float> from) {
  initial = std::move(from);
  for (float& v : initial) v += offset;
  if (kind == Kind::kBias) {
    double squares = 0;
    for (float v : initial) squares += double(v) * double(v);
    unit = std::max(1e-3f, float(std::sqrt(squares / double(initial.size()))));
  }
  for (std::vector<float>* v : {&change, &best, &gradient, &mean, &square}) v->assign(initial.size(), 0.0f);
  apply();
}

void TunedNumbers::update(double rate, int64_t step) {
  const double mean_weight = 1 - std::pow(kMeanDecay, double(step)), square_weight = 1 - std::pow(kSquareDecay, double(step));
  for (size_t i = 0; i < change.size(); ++i) {
    // A scale's gradient is by its logarithm already; a gain's and a bias's is by the number.
    const double by_change = kind == Kind::kScale ? 1 : kind == Kind::kBias ? double(unit) : double(value[i] + offset);
    const double g = double(gradient[i]) * by_change;
    mean[i] = float(kMeanDecay * double(mean[i]) + (1 - kMeanDecay) * g);
    square[i] = float(kSquareDecay * double(square[i]) + (1 - kSquareDecay) * g * g);
    change[i] -= float(rate * (double(mean[i]) / mean_weight) / (std::sqrt(double(square[i]) / square_weight) + kLeastRoot));
    gradient[i] = 0;
  }
  apply();
}

void TunedNumbers::apply() {
  value.resize(initial.size());
  for (size_t i = 0; i < value.size(); ++i) {
    if (kind == Kind::kBias) {
      value[i] = initial[i] + unit * change[i];
    } else {
      value[i] = initial[i] * std::exp(change[i]) - offset;
    }
    if (kind == Kind::kScale) value[i] = half_to_float(float_to_half(value[i]));
  }
}

Tuner::Tuner(const ModelGraph& graph, Device& device, Substitutes substitutes, TuneOptions options)
    : graph_(graph),
      device_(device),
      substitutes_(std::move(substitutes)),
      options_(options),
      pool_(options.n_threads),
      shape_(graph.shape()) {}

Result<std::unique_ptr<Tuner>> Tuner::create(const ModelGraph& graph, Device& device, const ModelPlan& plan,
                                             std::vector<std::shared_ptr<FinishedGroup>> groups, Substitutes substitutes,
                                             std::span<const int32_t> ids, std::span<const int32_t> prefix, TuneOptions options) {
  std::unique_ptr<Tuner> tuner(new Tuner(graph, device, std::move(substitutes), options));
  tuner->windows_ = windows_of(ids, options.context, prefix);
  if (tuner->windows_.size() < 2) {
    return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", 2 * (options.context - int64_t(prefix.size()))}});
  }
  tuner->groups_ = std::move(groups);
  for (const GroupPlan& group : plan.groups) {
    Matrix& matrix = tuner->matrices_.emplace_back();
    matrix.plan = &group;
    int64_t first_row = 0;
    for (size_t i = 0; i < group.tensors.size(); ++i) {
      tuner->rows_of_[group.tensors[i]] = {&matrix, first_row};
      first_row += group.n_rows[i];
    }
    // Embedding and head stay: most of their rows are hardly seen in so little text.
    if (group.is_embedding || group.is_head) continue;
    for (const auto& made : tuner->groups_) {
      if (made->name == group.name && !made->base.words.empty()) matrix.group = made.get();
    }
    if (!matrix.group) continue;
    SB_ASSERT(matrix.group->matrix.n_sets == 1);
    for (auto [numbers, halves] :
         {std::pair(&matrix.row_scale, &matrix.group->base.row_scale), std::pair(&matrix.column_scale, &matrix.group->base.column_scale)}) {
      std::vector<float> from;
      for (uint16_t h : *halves) from.push_back(half_to_float(h));
      numbers->start(std::move(from));
    }
  }
  SB_OK(tuner->find_vectors(plan));
  tuner->choose_windows();
  tuner->choose_rate();
  SB_OK(tuner->hire());
  tuner->job_ = {tuner->held_out_, false};
  tuner->begin_job();
  return tuner;
}

/// What each kept vector is, read off the plans that use it.
Status Tuner::find_vectors(const ModelPlan& kept) {
  for (int64_t layer = 0; layer <= shape_.n_layers; ++layer) {
    Plan plan(1);
    graph_.build(plan, layer < shape_.n_layers ? Pass{1, Pass::Logits::kNone, false, layer, layer + 1}
                                               : Pass{1, Pass::Logits::kAll, false, layer, -1});
    SB_OK(plan.finish());
    auto tune = [&](int32_t index, TunedNumbers::Kind kind, float offset = 0) {
      if (index < 0 || plan.values()[size_t(index)].kind != ValueKind::kWeight) return;
      const Value& v = plan.values()[size_t(index)];
      const bool is_kept = std::any_of(kept.kept.begin(), kept.kept.end(), [&](const KeptTensor& k) { return k.name == v.name; });
      if (!is_kept || v.shape.rank() != 1 || vectors_.contains(v.name)) return;
      std::vector<float> from(size_t(v.shape[0]));
      decode_row(v.weight, 0, from.data(), v.shape[0]);
      TunedNumbers& numbers = vectors_[v.name];
      numbers.kind = kind;
      numbers.offset = offset;
      numbers.start(std::move(from));
    };
    for (const Node& node : plan.nodes()) {
      if (const RmsNorm* op = std::get_if<RmsNorm>(&node.op)) tune(node.inputs[1], TunedNumbers::Kind::kGain, op->offset);
      if (std::holds_alternative<LayerNorm>(node.op)) {
        tune(node.inputs[1], TunedNumbers::Kind::kGain);
        tune(node.inputs[2], TunedNumbers::Kind::kBias);
      }
      if (std::holds_alternative<MatMul>(node.op)) tune(node.inputs[2], TunedNumbers::Kind::kBias);
    }
  }
  return {};
}

void Tuner::choose_windows() {
  const int64_t n_windows = int64_t(windows_.size()), n_held_out = std::clamp<int64_t>(n_windows / 8, 1, kMostHeldOut);
  for (int64_t w = n_windows - n_held_out; w < n_windows; ++w) held_out_.push_back(size_t(w));
  // As many as let each be met twice: what the source makes of them is kept. Those that calibration saw come last: the correction of the
  // matrices was made for them, so that they show a third of the loss and teach little.
  const int64_t batch = std::max<int64_t>(1, options_.batch_tokens / options_.context);
  const int64_t most = std::max<int64_t>(batch, options_.n_steps * batch / 2), here = n_windows - n_held_out;
  const int64_t n_seen = std::min(here, options_.n_calibrated / options_.context), n_fresh = here - n_seen;
  for (int64_t i = 0; i < std::min(most, n_fresh); ++i) train_.push_back(size_t(n_seen + i * n_fresh / std::min(most, n_fresh)));
  for (int64_t i = n_seen; i-- > 0 && int64_t(train_.size()) < most;) train_.push_back(size_t(i));
  const int64_t n_train = int64_t(train_.size());
  taught_.resize(windows_.size());
  const double n = double(shape_.n_layers), n_measures = 1 + std::ceil(double(options_.n_steps) / double(kStepsAMeasure));
  work_ = double(n_train + n_held_out) * n + double(options_.n_steps * std::min(batch, n_train)) * (4 * n + 1) +
          n_measures * double(n_held_out) * (n + 1);
  report_.n_tokens = n_train * options_.context;
  report_.n_held_out = n_held_out * options_.context;
}

/// What is less wrong needs to move less, and with the same rate would first lose what it has: 3e-3 at 2 bits, 1e-3 at 3.
void Tuner::choose_rate() {
  if (options_.rate > 0) return;
  double planes = 0, weights = 0;
  for (const Matrix& m : matrices_) {
    if (!m.group) continue;
    planes += double(m.group->base.code.n_planes) * double(m.plan->n_weights());
    weights += double(m.plan->n_weights());
  }
  options_.rate = 3e-3 * std::pow(3.0, 2 - planes / std::max(1.0, weights));
}

template <class Fn>
void Tuner::each(Fn fn) {
  for (Matrix& matrix : matrices_) {
    if (!matrix.group) continue;
    fn(matrix.row_scale);
    fn(matrix.column_scale);
  }
  for (auto& [name, numbers] : vectors_) fn(numbers);
}

Substitutes Tuner::floats_of(int64_t layer) {
  Substitutes out = substitutes_;
  for (const auto& [name, numbers] : vectors_) out[name] = vector_view(numbers.value);
  auto is_here = [&](const Matrix& m) { return layer < shape_.n_layers ? m.plan->layer == layer : m.plan->is_head; };
  int64_t n_floats = 0;
  for (const Matrix& m : matrices_) n_floats += is_here(m) ? m.plan->n_weights() : 0;
  floats_.resize(size_t(n_floats));
  float* to = floats_.data();
  for (const Matrix& m : matrices_) {
    if (!is_here(m)) continue;
    const int64_t k = m.plan->n_columns;
    int64_t first_row = 0;
    for (size_t i = 0; i < m.plan->tensors.size(); ++i) {
      const auto found = substitutes_.find(m.plan->tensors[i]);
      const TensorView& stored = found != substitutes_.end() ? found->second : m.plan->views[i];
      const int64_t n = m.plan->n_rows[i];
      pool_.run([&](int thread) {
        std::vector<float> row;
        for (int64_t r = thread; r < n; r += pool_.size()) {
          if (m.group) {
            decode_with(m.group->matrix, m.row_scale.value, m.column_scale.value, first_row + r, to + r * k, row);
          } else {
            decode_row(stored, r, to + r * k, k);
          }
        }
      });
      out[m.plan->tensors[i]] = {reinterpret_cast<const std::byte*>(to), Dtype::kF32, {n, k}, k * 4, nullptr, 0};
      to += n * k;
      first_row += n;
    }
  }
  return out;
}

/// As many workers as end a step's windows soonest with the threads there are; rather more of one thread than one of many.
Status Tuner::hire() {
  const int n_windows = int(std::min<int64_t>(std::max<int64_t>(1, options_.batch_tokens / options_.context), int64_t(train_.size())));
  int n_workers = 1;
  auto rounds = [&](int n) {
    const int n_turns = (n_windows + n - 1) / n, n_threads = options_.n_threads / n;
    return double(n_turns) / double(n_threads);
  };
  for (int n = 2; n <= std::min(n_windows, options_.n_threads); ++n) {
    if (rounds(n) <= rounds(n_workers)) n_workers = n;
  }
  for (int i = 0; i < n_workers; ++i) {
    Worker& worker = workers_.emplace_back();
    SB_TRY(worker.device, device_.twin(options_.n_threads / n_workers));
    worker.pool = std::make_unique<ThreadPool>(options_.n_threads / n_workers);
  }
  crew_ = std::make_unique<ThreadPool>(n_workers);
  return {};
}

Status Tuner::share_out(size_t n, const std::function<Result<Run>(Worker&)>& make) {
  std::vector<Status> done(n);
  std::atomic<size_t> next{0};
  crew_->run([&](int worker) {
    size_t i = next.fetch_add(1);
    if (i >= n) return;
    Result<Run> run = make(workers_[size_t(worker)]);
    for (; i < n; i = next.fetch_add(1)) done[i] = run ? (*run)(i) : Status(err(run.error()));
  });
  for (Status& status : done) SB_OK(std::move(status));
  return {};
}

std::vector<float>& Tuner::WindowGradients::of(TunedNumbers& numbers) {
  std::vector<float>& sums_of = sums[&numbers];
  if (sums_of.empty()) sums_of.assign(numbers.gradient.size(), 0.0f);
  return sums_of;
}

std::span<float> Tuner::WindowGradients::vector(std::string_view name) {
  auto found = tuner.vectors_.find(name);
  return found == tuner.vectors_.end() ? std::span<float>() : std::span(of(found->second));
}

void Tuner::WindowGradients::product(std::string_view weight, const TensorView& y, const TensorView& bias, const TensorView& dy) {
  auto found = tuner.rows_of_.find(weight);
  if (found == tuner.rows_of_.end() || !found->second.first->group) return;
  auto [matrix, first_row] = found->second;
  float* gradient = of(matrix->row_scale).data() + first_row;
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

void Tuner::WindowGradients::input(std::span<const std::string_view> weights, const TensorView& x, const TensorView& dx) {
  Matrix* matrix = nullptr;
  for (std::string_view weight : weights) {
    auto found = tuner.rows_of_.find(weight);
    if (found == tuner.rows_of_.end() || !found->second.first->group || (matrix && matrix != found->second.first)) return;
    matrix = found->second.first;
  }
  if (matrix) add_column_gradients(matrix->group->matrix, x, dx, of(matrix->column_scale), pool);
}

void Tuner::add(const WindowGradients& gradients) {
  for (const auto& [numbers, sums] : gradients.sums) {
    for (size_t i = 0; i < sums.size(); ++i) numbers->gradient[i] += sums[i];
  }
}

Status Tuner::teach(std::span<const size_t> windows) {
  const Pass pass{options_.context, Pass::Logits::kNone, false, 0, shape_.n_layers};
  return share_out(windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(Stretch compiled, Stretch::compile(graph_, *worker.device, pass));
    return [&, windows, stretch = std::make_shared<Stretch>(std::move(compiled))](size_t i) -> Status {
      SB_OK(stretch->run({}, windows_[windows[i]]));
      const std::span<const float> y = stretch->output("y");
      taught_[windows[i]].assign(y.begin(), y.end());
      return {};
    };
  });
}

Status Tuner::forward(int64_t layer) {
  const Pass pass{options_.context, Pass::Logits::kNone, false, layer, layer + 1};
  const Substitutes floats = floats_of(layer);
  return share_out(job_.windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(Stretch compiled, Stretch::compile(graph_, *worker.device, pass, floats));
    return [&, layer, stretch = std::make_shared<Stretch>(std::move(compiled))](size_t i) -> Status {
      SB_OK(stretch->run(x_[i][size_t(layer)], windows_[job_.windows[i]]));
      const std::span<const float> y = stretch->output("y");
      x_[i][size_t(layer) + 1].assign(y.begin(), y.end());
      if (!job_.learns) x_[i][size_t(layer)] = {};
      return {};
    };
  });
}

/// KL(source ‖ quantised) of all windows, and where it comes from.
Status Tuner::head() {
  const Pass pass{kHeadTokens, Pass::Logits::kAll, false, shape_.n_layers, -1};
  const Substitutes floats = floats_of(shape_.n_layers);
  std::vector<double> kl(job_.windows.size());
  std::vector<std::unique_ptr<WindowGradients>> gradients(job_.windows.size());
  SB_OK(share_out(job_.windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(Stretch teacher, Stretch::compile(graph_, *worker.device, pass));
    SB_TRY(ReversibleStretch compiled, ReversibleStretch::compile(graph_, *worker.device, pass, floats));
    return [&, source = std::make_shared<Stretch>(std::move(teacher)),
            student = std::make_shared<ReversibleStretch>(std::move(compiled))](size_t i) -> Status {
      gradients[i] = std::make_unique<WindowGradients>(*this, *worker.pool);
      SB_TRY(kl[i], head_of(i, *source, *student, *gradients[i]));
      return {};
    };
  }));
  for (size_t i = 0; i < kl.size(); ++i) {
    kl_ += kl[i];
    add(*gradients[i]);
  }
  return {};
}

Result<double> Tuner::head_of(size_t i, Stretch& source, ReversibleStretch& student, WindowGradients& gradients) {
  const int64_t d = shape_.hidden, n_tokens = options_.context;
  const float share = 1 / float(n_tokens * int64_t(job_.windows.size()));
  std::vector<float> x(size_t(kHeadTokens * d)), dx(x.size()), wanted, gradient;
  ThreadPool& pool = gradients.pool;
  double sum = 0;
  dx_[i].assign(size_t(n_tokens * d), 0.0f);
  for (int64_t begin = 0; begin < n_tokens; begin += kHeadTokens) {
    const int64_t n_rows = std::min(kHeadTokens, n_tokens - begin);
    auto take = [&](const std::vector<float>& from) {
      std::fill(x.begin(), x.end(), 0.0f);
      std::copy_n(from.begin() + begin * d, n_rows * d, x.begin());
      return std::span<const float>(x);
    };
    SB_OK(source.run(take(taught_[job_.windows[i]]), {}));
    const std::span<const float> p = source.output("logits");
    wanted.assign(p.begin(), p.end());
    SB_OK(student.run(take(x_[i].back()), {}));
    const float* logits = student.output("logits").data();
    const int64_t vocab = int64_t(wanted.size()) / kHeadTokens;
    gradient.assign(wanted.size(), 0.0f);
    std::vector<double> kl(static_cast<size_t>(n_rows));
    pool.run([&](int thread) {
      for (int64_t r = thread; r < n_rows; r += pool.size()) {
        const float *a = wanted.data() + r * vocab, *b = logits + r * vocab;
        const LogitRow source_row = logit_row(a, vocab), row = logit_row(b, vocab);
        kl[size_t(r)] = kl_divergence(a, source_row, b, row, vocab);
        if (!job_.learns) continue;
        const float a_shift = float(source_row.log_sum), b_shift = float(row.log_sum);
        for (int64_t v = 0; v < vocab; ++v) gradient[size_t(r * vocab + v)] = share * (std::exp(b[v] - b_shift) - std::exp(a[v] - a_shift));
      }
    });
    for (int64_t r = 0; r < n_rows; ++r) {
      if (!std::isfinite(kl[size_t(r)])) return err(Code::kLogitsNotFinite, {{"position", begin + r}});
      sum += kl[size_t(r)];
    }
    if (!job_.learns) continue;
    SB_OK(student.back("logits", gradient, gradients, dx, pool));
    std::copy_n(dx.begin(), n_rows * d, dx_[i].begin() + begin * d);
  }
  return sum;
}

Status Tuner::backward(int64_t layer) {
  const Pass pass{options_.context, Pass::Logits::kNone, false, layer, layer + 1};
  const Substitutes floats = floats_of(layer);
  std::vector<std::unique_ptr<WindowGradients>> gradients(job_.windows.size());
  SB_OK(share_out(job_.windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(ReversibleStretch compiled, ReversibleStretch::compile(graph_, *worker.device, pass, floats));
    return [&, layer, stretch = std::make_shared<ReversibleStretch>(std::move(compiled))](size_t i) -> Status {
      gradients[i] = std::make_unique<WindowGradients>(*this, *worker.pool);
      SB_OK(stretch->run(x_[i][size_t(layer)], windows_[job_.windows[i]]));
      const std::vector<float> dy = std::move(dx_[i]);
      dx_[i].resize(dy.size());
      SB_OK(stretch->back("y", dy, *gradients[i], layer > 0 ? std::span(dx_[i]) : std::span<float>(), *worker.pool));
      x_[i][size_t(layer) + 1] = {};
      return {};
    };
  }));
  for (const auto& of_window : gradients) add(*of_window);
  return {};
}

void Tuner::begin_job() {
  at_ = 0;
  worked_before_ = worked_;
  kl_ = 0;
  x_.assign(job_.windows.size(), std::vector<std::vector<float>>(size_t(shape_.n_layers) + 1));
  dx_.resize(job_.windows.size());
}

void Tuner::end_job() {
  if (job_.learns) {
    ++n_steps_;
    const double passed = double(n_steps_ - 1) / double(options_.n_steps);
    const double rise = std::min(1.0, double(n_steps_) / double(std::min(kWarmSteps, std::max<int64_t>(1, options_.n_steps / 4))));
    const double rate = options_.rate * rise * 0.5 * (1 + std::cos(3.14159265358979 * passed));
    each([&](TunedNumbers& numbers) { numbers.update(rate, n_steps_); });
  } else {
    const double kl = kl_ / double(report_.n_held_out);
    report_.measured.emplace_back(n_steps_, kl);
    if (n_steps_ == 0) report_.kl_before = report_.kl_after = best_kl_ = kl;
    if (kl < best_kl_) {
      best_kl_ = report_.kl_after = kl;
      report_.n_steps = n_steps_;
      each([](TunedNumbers& numbers) { numbers.best = numbers.change; });
      n_worse_ = 0;
    } else if (n_steps_ > 0) {
      ++n_worse_;
    }
    if (n_steps_ >= options_.n_steps || n_worse_ >= kPatience) return finish();
  }
  const bool measures = job_.learns && (n_steps_ % kStepsAMeasure == 0 || n_steps_ >= options_.n_steps);
  if (measures) {
    job_ = {held_out_, false};
  } else {
    job_ = {{}, true};
    const size_t batch = size_t(std::max<int64_t>(1, options_.batch_tokens / options_.context));
    while (job_.windows.size() < std::min(batch, train_.size())) {
      if (order_.empty()) order_ = shuffled(train_, options_.seed + uint64_t(n_steps_));
      job_.windows.push_back(order_.back());
      order_.pop_back();
    }
  }
  begin_job();
}

void Tuner::finish() {
  each([](TunedNumbers& numbers) {
    numbers.change = numbers.best;
    numbers.apply();
  });
  for (Matrix& m : matrices_) {
    if (!m.group) continue;
    // In place: what runs on these arrays keeps seeing them.
    for (size_t i = 0; i < m.row_scale.value.size(); ++i) m.group->base.row_scale[i] = float_to_half(m.row_scale.value[i]);
    for (size_t i = 0; i < m.column_scale.value.size(); ++i) m.group->base.column_scale[i] = float_to_half(m.column_scale.value[i]);
  }
  done_ = true;
}

Result<bool> Tuner::step() {
  if (done_) return false;
  std::vector<size_t> untaught;
  for (size_t window : job_.windows) {
    if (taught_[window].empty() && untaught.size() < workers_.size()) untaught.push_back(window);
  }
  if (!untaught.empty()) {
    SB_OK(teach(untaught));
    return true;
  }
  const int64_t n = shape_.n_layers;
  const double n_windows = double(job_.windows.size());
  if (at_ < n) {
    SB_OK(forward(at_));
    worked_ += n_windows;
  } else if (at_ == n) {
    SB_OK(head());
    worked_ += n_windows;
  } else {
    SB_OK(backward(2 * n - at_));
    worked_ += 3 * n_windows;  // again forward, then back by inputs; parameters cost little
  }
  ++at_;
  if (at_ == (job_.learns ? 2 * n + 1 : n + 1)) end_job();
  return !done_;
}

double Tuner::progress() const {
  if (done_) return 1;
  const auto n_taught = std::ranges::count_if(taught_, [](const std::vector<float>& y) { return !y.empty(); });
  return std::min(1.0, (worked_ + double(n_taught * shape_.n_layers)) / work_);
}

void Tuner::save(CheckpointWriter& to) {
  // Within a job nothing of this changes but the gradients, and they begin at zero.
  each([&](TunedNumbers& numbers) {
    for (const std::vector<float>* v : {&numbers.change, &numbers.best, &numbers.mean, &numbers.square}) to.array(*v);
  });
  for (int64_t n : {n_steps_, n_worse_, report_.n_steps}) to.number(uint64_t(n));
  for (double v : {best_kl_, report_.kl_before, report_.kl_after, worked_before_}) to.real(v);
  to.number(report_.measured.size());
  for (const auto& [steps, kl] : report_.measured) {
    to.number(uint64_t(steps));
    to.real(kl);
  }
  for (const std::vector<size_t>* windows : {&order_, &job_.windows}) {
    to.number(windows->size());
    for (size_t window : *windows) to.number(window);
  }
  to.number(job_.learns);
}

Status Tuner::restore(CheckpointReader& from) {
  SB_ASSERT(n_steps_ == 0 && at_ == 0);
  each([&](TunedNumbers& numbers) {
    for (std::vector<float>* v : {&numbers.change, &numbers.best, &numbers.mean, &numbers.square}) {
      from.array(*v);
      if (v->size() != numbers.initial.size()) {
        v->assign(numbers.initial.size(), 0.0f);
        from.fail();
      }
    }
    numbers.apply();
  });
  for (int64_t* n : {&n_steps_, &n_worse_, &report_.n_steps}) *n = int64_t(from.number());
  for (double* v : {&best_kl_, &report_.kl_before, &report_.kl_after, &worked_}) *v = from.real();
  for (size_t n = from.count(); n > 0; --n) {
    const int64_t steps = int64_t(from.number());
    report_.measured.emplace_back(steps, from.real());
  }
  for (std::vector<size_t>* windows : {&order_, &job_.windows}) {
    windows->resize(from.count());
    for (size_t& window : *windows) {
      window = size_t(from.number());
      if (window >= windows_.size()) from.fail();
    }
  }
  job_.learns = from.number() != 0;
  if (job_.windows.empty()) from.fail();
  SB_OK(from.status());
  begin_job();
  return {};
}

}  // namespace sb
