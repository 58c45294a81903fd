#include "quantize/tune.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "quantize/evaluate.h"
#include "quantize/window_gradients.h"

namespace sb {
namespace {

constexpr int64_t kMostHeldOut = 8;    // windows
constexpr int64_t kStepsAMeasure = 5;  // between looks at the held-out text
constexpr int64_t kPatience = 2;       // looks without a better one before it stops
constexpr int64_t kWarmSteps = 5;      // the rate rises over so many

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

}  // namespace

Tuner::Tuner(const ModelGraph& graph, Device& device, TunedModel model, TuneOptions options)
    : graph_(graph), device_(device), model_(std::move(model)), options_(options), pool_(options.n_threads), shape_(graph.shape()) {}

Result<std::unique_ptr<Tuner>> Tuner::create(const ModelGraph& graph, Device& device, const ModelPlan& plan,
                                             std::vector<std::shared_ptr<FinishedGroup>> groups, Substitutes substitutes,
                                             std::span<const int32_t> ids, std::span<const int32_t> prefix, TuneOptions options) {
  SB_TRY(TunedModel model, TunedModel::create(graph, plan, std::move(groups), std::move(substitutes)));
  std::unique_ptr<Tuner> tuner(new Tuner(graph, device, std::move(model), options));
  tuner->windows_ = windows_of(ids, options.context, prefix);
  if (tuner->windows_.size() < 2) {
    return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", 2 * (options.context - int64_t(prefix.size()))}});
  }
  tuner->choose_windows();
  tuner->choose_rate();
  SB_OK(tuner->hire());
  tuner->job_ = {tuner->held_out_, false};
  tuner->begin_job();
  return tuner;
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
  if (options_.rate <= 0) options_.rate = 3e-3 * std::pow(3.0, 2 - model_.mean_planes());
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
  const Substitutes floats = model_.floats_of(layer, pool_);
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
  const Substitutes floats = model_.floats_of(shape_.n_layers, pool_);
  std::vector<double> kl(job_.windows.size());
  std::vector<std::unique_ptr<WindowGradients>> gradients(job_.windows.size());
  SB_OK(share_out(job_.windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(Stretch teacher, Stretch::compile(graph_, *worker.device, pass));
    SB_TRY(ReversibleStretch compiled, ReversibleStretch::compile(graph_, *worker.device, pass, floats));
    return [&, source = std::make_shared<Stretch>(std::move(teacher)),
            student = std::make_shared<ReversibleStretch>(std::move(compiled))](size_t i) -> Status {
      gradients[i] = std::make_unique<WindowGradients>(model_, *worker.pool);
      SB_TRY(kl[i], head_of(i, *source, *student, *gradients[i]));
      return {};
    };
  }));
  for (size_t i = 0; i < kl.size(); ++i) {
    kl_ += kl[i];
    gradients[i]->add_to_model();
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
  const Substitutes floats = model_.floats_of(layer, pool_);
  std::vector<std::unique_ptr<WindowGradients>> gradients(job_.windows.size());
  SB_OK(share_out(job_.windows.size(), [&](Worker& worker) -> Result<Run> {
    SB_TRY(ReversibleStretch compiled, ReversibleStretch::compile(graph_, *worker.device, pass, floats));
    return [&, layer, stretch = std::make_shared<ReversibleStretch>(std::move(compiled))](size_t i) -> Status {
      gradients[i] = std::make_unique<WindowGradients>(model_, *worker.pool);
      SB_OK(stretch->run(x_[i][size_t(layer)], windows_[job_.windows[i]]));
      const std::vector<float> dy = std::move(dx_[i]);
      dx_[i].resize(dy.size());
      SB_OK(stretch->back("y", dy, *gradients[i], layer > 0 ? std::span(dx_[i]) : std::span<float>(), *worker.pool));
      x_[i][size_t(layer) + 1] = {};
      return {};
    };
  }));
  for (const auto& of_window : gradients) of_window->add_to_model();
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
    model_.each([&](TunedNumbers& numbers) { numbers.update(rate, n_steps_); });
  } else {
    const double kl = kl_ / double(report_.n_held_out);
    report_.measured.emplace_back(n_steps_, kl);
    if (n_steps_ == 0) report_.kl_before = report_.kl_after = best_kl_ = kl;
    if (kl < best_kl_) {
      best_kl_ = report_.kl_after = kl;
      report_.n_steps = n_steps_;
      model_.each([](TunedNumbers& numbers) { numbers.best = numbers.change; });
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
  model_.each([](TunedNumbers& numbers) {
    numbers.change = numbers.best;
    numbers.apply();
  });
  model_.store();
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
  model_.each([&](TunedNumbers& numbers) {
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
  model_.each([&](TunedNumbers& numbers) {
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
