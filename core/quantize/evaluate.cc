#include "quantize/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sb {
namespace {

double mean_of(const std::vector<double>& sums, int64_t each) {
  return sums.empty() ? 0 : std::accumulate(sums.begin(), sums.end(), 0.0) / double(int64_t(sums.size()) * each);
}
/// Standard error of a mean, windows taken as the independent samples (positions in one are not).
double error_of(const std::vector<double>& sums, int64_t each) {
  const double n = double(sums.size()), mean = mean_of(sums, each);
  if (n < 2) return 0;
  double squares = 0;
  for (double s : sums) squares += (s / double(each) - mean) * (s / double(each) - mean);
  return std::sqrt(squares / (n - 1) / n);
}

}  // namespace

LogitRow logit_row(const float* logits, int64_t n) {
  const float* top = std::max_element(logits, logits + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double(std::exp(logits[i] - *top));
  return {double(*top) + std::log(sum), int32_t(top - logits)};
}

double kl_divergence(const float* reference, const LogitRow& reference_row, const float* logits, const LogitRow& row, int64_t n) {
  const float p_shift = float(reference_row.log_sum), q_shift = float(row.log_sum);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float log_p = reference[i] - p_shift;
    if (log_p > -30) sum += double(std::exp(log_p) * (log_p - (logits[i] - q_shift)));  // below, p is nothing
  }
  return sum;
}

Result<Evaluation::Contender> Evaluation::contender(const EvaluatedModel& model) const {
  Contender c;
  c.graph = model.graph;
  const int64_t n_layers = c.graph->shape().n_layers;
  SB_TRY(Stretch body,
         Stretch::compile(*c.graph, *device_, {options_.context, Pass::Logits::kNone, false, 0, n_layers}, model.substitutes));
  SB_TRY(Stretch head, Stretch::compile(*c.graph, *device_, {kHeadTokens, Pass::Logits::kAll, false, n_layers, -1}, model.substitutes));
  c.body = std::make_unique<Stretch>(std::move(body));
  c.head = std::make_unique<Stretch>(std::move(head));
  return c;
}

Result<Evaluation> Evaluation::create(std::vector<EvaluatedModel> models, const ModelGraph* reference, Device& device,
                                      std::span<const int32_t> ids, std::span<const int32_t> prefix, const EvaluationOptions& options) {
  Evaluation e;
  e.device_ = &device;
  e.options_ = options;
  e.windows_ = windows_of(ids, options.context, prefix);
  if (e.windows_.empty()) return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", options.context - int64_t(prefix.size())}});
  if (options.n_windows > 0 && options.n_windows < int64_t(e.windows_.size())) e.windows_.resize(size_t(options.n_windows));
  // Position t predicts token t + 1; the last position of a window predicts nothing in it.
  e.counted_from_ = options.count_all ? std::max<int64_t>(1, int64_t(prefix.size())) - 1 : options.context / 2;
  e.has_reference_ = reference != nullptr;
  if (reference) models.push_back({reference, {}});
  for (const EvaluatedModel& model : models) {
    SB_TRY(Contender c, e.contender(model));
    e.models_.push_back(std::move(c));
  }
  e.pool_ = std::make_unique<ThreadPool>(device.n_threads());
  return e;
}

Result<bool> Evaluation::step() {
  if (n_done_ >= int64_t(windows_.size())) return false;
  const std::vector<int32_t>& window = windows_[size_t(n_done_)];
  const int64_t n = options_.context, first = counted_from_, n_counted = n - 1 - first;
  for (Contender& c : models_) {
    SB_OK(c.body->run({}, window));
    const std::span<const float> y = c.body->output("y");
    c.hidden.assign(y.begin(), y.end());
    for (std::vector<double>* sums : {&c.nll, &c.kl, &c.right, &c.agree}) sums->push_back(0);
  }
  std::vector<float> reference;  // logits [kHeadTokens, V]
  for (int64_t begin = first; begin < n - 1; begin += kHeadTokens) {
    const int64_t rows = std::min(kHeadTokens, n - 1 - begin);
    std::vector<LogitRow> reference_rows(static_cast<size_t>(rows));
    // The reference comes first: all others are compared with it.
    for (size_t i = models_.size(); i-- > 0;) {
      Contender& c = models_[i];
      const int64_t d = c.graph->shape().hidden, vocab = c.graph->shape().vocab;
      std::vector<float> x(size_t(kHeadTokens * d), 0.0f);
      std::copy_n(c.hidden.begin() + begin * d, rows * d, x.begin());
      SB_OK(c.head->run(x, {}));
      const std::span<const float> logits = c.head->output("logits");
      const int64_t stride = int64_t(logits.size()) / kHeadTokens;
      const size_t n_rows = size_t(rows);
      std::vector<double> nll(n_rows), kl(n_rows), right(n_rows), agree(n_rows);
      const bool compares = has_reference_ && i + 1 < models_.size();
      pool_->run([&](int thread) {
        for (int64_t r = thread; r < rows; r += pool_->size()) {
          const float* row = logits.data() + r * stride;
          const LogitRow mine = logit_row(row, vocab);
          const int32_t next = window[size_t(begin + r + 1)];
          nll[size_t(r)] = mine.log_sum - double(row[next]);
          right[size_t(r)] = mine.top == next;
          if (!compares) {
            reference_rows[size_t(r)] = mine;
            continue;
          }
          kl[size_t(r)] = kl_divergence(reference.data() + r * vocab, reference_rows[size_t(r)], row, mine, vocab);
          agree[size_t(r)] = mine.top == reference_rows[size_t(r)].top;
        }
      });
      for (int64_t r = 0; r < rows; ++r) {
        if (!std::isfinite(nll[size_t(r)])) return err(Code::kLogitsNotFinite, {{"position", begin + r}});
        c.nll.back() += nll[size_t(r)];
        c.kl.back() += kl[size_t(r)];
        c.right.back() += right[size_t(r)];
        c.agree.back() += agree[size_t(r)];
      }
      if (has_reference_ && !compares) {
        reference.resize(size_t(rows * vocab));
        for (int64_t r = 0; r < rows; ++r) std::copy_n(logits.data() + r * stride, vocab, reference.begin() + r * vocab);
      }
    }
  }
  SB_ASSERT(n_counted > 0);
  ++n_done_;
  return n_done_ < int64_t(windows_.size());
}

EvaluationReport Evaluation::report(size_t model) const {
  const Contender& c = models_[model];
  const int64_t each = options_.context - 1 - counted_from_;
  EvaluationReport r;
  r.n_tokens = n_done_ * each;
  const double nll = mean_of(c.nll, each);
  r.ppl = std::exp(nll);
  r.ppl_se = r.ppl * error_of(c.nll, each);
  r.top1 = mean_of(c.right, each);
  r.has_reference = has_reference_;
  if (!has_reference_) return r;
  const Contender& reference = models_.back();
  r.kl = mean_of(c.kl, each);
  r.kl_se = error_of(c.kl, each);
  r.ppl_ref = std::exp(mean_of(reference.nll, each));
  r.top1_ref = mean_of(reference.right, each);
  r.agree = mean_of(c.agree, each);
  if (r.top1_ref > 0) {
    r.top1_drop = 1 - r.top1 / r.top1_ref;
    std::vector<double> lost;
    for (size_t i = 0; i < c.right.size(); ++i) lost.push_back(reference.right[i] - c.right[i]);
    r.top1_drop_se = error_of(lost, each) / r.top1_ref;
  }
  return r;
}

}  // namespace sb
