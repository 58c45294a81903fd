#include "quantize/sensitivity.h"

#include <algorithm>
#include <numeric>

#include "base/host.h"
#include "quantize/evaluate.h"

namespace sb {
namespace {

constexpr size_t kWindows = 2;           // measured on
constexpr int64_t kMostHeadTokens = 64;  // logits at once
const char* const kLayerProbe = "coded2";
const char* const kEmbeddingProbe = "coded3";  // a 2-bit embedding is so bad that what it costs says little of 3 and 4 bits

}  // namespace

double code_distortion(const std::string& format) {
  struct Row {
    const char* format;
    double distortion;
  };
  static constexpr Row kRows[] = {{"plain2", 0.1188}, {"plain3", 0.0374}, {"plain4", 0.0115}, {"coded2", 0.0764},
                                  {"coded3", 0.0196}, {"coded4", 0.0051}, {"rows8", 4e-5}};
  for (const Row& row : kRows) {
    if (format == row.format) return row.distortion;
  }
  return 0;
}

Result<std::unique_ptr<Sensitivity>> Sensitivity::create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                         std::span<const int32_t> prefix, QuantizerOptions options) {
  std::unique_ptr<Sensitivity> s(new Sensitivity(graph, device));
  options.sequential = false;  // each group alone: what reaches it is exact
  options.formats.refine = "";
  options.formats.linears = kLayerProbe;
  options.formats.embedding = kEmbeddingProbe;
  s->pool_ = std::make_unique<ThreadPool>(options.n_threads);
  SB_TRY(s->quantizer_, Quantizer::create(graph, device, ids, prefix, options));
  for (size_t w = 0; w < std::min<size_t>(kWindows, size_t(s->quantizer_->n_windows())); ++w)
    s->windows_.push_back(s->quantizer_->window(w));
  s->pace_ = options.pace;
  s->aside_ = options.aside;
  if (s->pace_) {
    for (const GroupPlan& group : s->quantizer_->plan().groups) s->pace_->expect(Work::kProbe, s->probe_work(group));
  }
  SB_OK(s->measure_reference());
  return s;
}

Status Sensitivity::measure_reference() {
  const int64_t context = int64_t(windows_[0].size()), n_layers = graph_.shape().n_layers, d = graph_.shape().hidden;
  const int64_t n_at_once = std::min(kMostHeadTokens, context / 2);
  SB_TRY(Stretch body, Stretch::compile(graph_, device_, {context, Pass::Logits::kNone, false, 0, n_layers}));
  SB_TRY(Stretch head, Stretch::compile(graph_, device_, {n_at_once, Pass::Logits::kAll, false, n_layers, -1}));
  for (const std::vector<int32_t>& window : windows_) {
    SB_OK(body.run({}, window));
    const std::span<const float> y = body.output("y");
    const std::vector<float> hidden(y.begin(), y.end());
    std::vector<Logits>& kept = reference_.emplace_back();
    for (int64_t t = context / 2; t + n_at_once <= context; t += n_at_once) {
      SB_OK(head.run(std::span(hidden).subspan(size_t(t * d), size_t(n_at_once * d)), {}));
      const std::span<const float> logits = head.output("logits");
      Logits& some = kept.emplace_back();
      if (aside_) {
        aside_->fit(some.place, logits.size_bytes());
        aside_->keep(some.place.offset, logits);
      } else {
        some.values.assign(logits.begin(), logits.end());
      }
    }
    before_.push_back(hidden);
  }
  return {};
}

double Sensitivity::probe_work(const GroupPlan& group) const {
  double weights = 0;
  for (const GroupPlan& g : quantizer_->plan().groups) {
    if (g.is_head) weights += double(g.n_weights()) / 2;  // of the second half of a window
    if (!g.is_head && g.layer >= group.layer) weights += double(g.n_weights());
  }
  return weights * double(windows_.size() * windows_[0].size());
}

Result<double> Sensitivity::kl_of(const Substitutes& substitutes, int64_t from_layer) {
  const int64_t context = int64_t(windows_[0].size()), n_layers = graph_.shape().n_layers, d = graph_.shape().hidden;
  const int64_t n_at_once = std::min(kMostHeadTokens, context / 2);
  SB_TRY(Stretch body,
         Stretch::compile(graph_, device_, {context, Pass::Logits::kNone, false, std::max<int64_t>(0, from_layer), n_layers}, substitutes));
  SB_TRY(Stretch head, Stretch::compile(graph_, device_, {n_at_once, Pass::Logits::kAll, false, n_layers, -1}, substitutes));
  const int64_t vocab = graph_.shape().vocab;
  double sum = 0;
  int64_t n = 0;
  for (size_t w = 0; w < windows_.size(); ++w) {
    SB_OK(body.run(from_layer <= 0 ? std::span<const float>() : std::span<const float>(before_[w]), windows_[w]));
    const std::span<const float> y = body.output("y");
    const std::vector<float> hidden(y.begin(), y.end());
    const Logits* next = reference_[w].data();
    for (int64_t t = context / 2; t + n_at_once <= context; t += n_at_once) {
      SB_OK(head.run(std::span(hidden).subspan(size_t(t * d), size_t(n_at_once * d)), {}));
      const std::span<const float> logits = head.output("logits");
      const int64_t stride = int64_t(logits.size()) / n_at_once;
      if (aside_) {
        room_.resize(logits.size());
        aside_->bring(next->place.offset, room_);
        SB_OK(aside_->status());
      }
      const float* reference = (aside_ ? room_ : next->values).data();
      ++next;
      std::vector<double> kl(static_cast<size_t>(n_at_once));
      pool_->run([&](int thread) {
        for (int64_t r = thread; r < n_at_once; r += pool_->size()) {
          const float *p = reference + r * stride, *q = logits.data() + r * stride;
          kl[size_t(r)] = kl_divergence(p, logit_row(p, vocab), q, logit_row(q, vocab), vocab);
        }
      });
      sum += std::accumulate(kl.begin(), kl.end(), 0.0);
      n += n_at_once;
    }
  }
  return sum / double(n);
}

Result<bool> Sensitivity::step() {
  if (quantizer_->layer() > 0 && quantizer_->begins_layer()) {
    for (size_t w = 0; w < windows_.size(); ++w) before_[w] = quantizer_->x(w);
  }
  SB_TRY(const bool more, quantizer_->step());
  for (const std::shared_ptr<FinishedGroup>& group : quantizer_->take_finished()) {
    const GroupPlan& plan = *std::find_if(quantizer_->plan().groups.begin(), quantizer_->plan().groups.end(),
                                          [&](const GroupPlan& g) { return g.name == group->name; });
    Substitutes alone;
    for (const std::string& tensor : plan.tensors) alone[tensor] = quantizer_->substitutes().find(tensor)->second;
    // A head's inputs are exact up to it; an embedding changes everything from the start.
    const double began = host_now_ms();
    SB_TRY(const double kl, kl_of(alone, plan.is_embedding ? -1 : plan.layer));
    measured_[group->name] = std::max(kl, 0.0);
    if (pace_) pace_->done(Work::kProbe, probe_work(plan), host_now_ms() - began);
  }
  return more;
}

void Sensitivity::save(CheckpointWriter& to) {
  quantizer_->save(to);
  for (const std::vector<float>& x : before_) to.array(x);
  to.number(measured_.size());
  for (const auto& [name, kl] : measured_) {
    to.text(name);
    to.real(kl);
  }
}

Status Sensitivity::restore(CheckpointReader& from) {
  SB_OK(quantizer_->restore(from));
  for (std::vector<float>& x : before_) {
    const size_t n = x.size();
    from.array(x);
    if (x.size() != n) from.fail();
  }
  for (size_t n = from.count(); n > 0; --n) {
    const std::string name = from.text();
    measured_[name] = from.real();
    for (const GroupPlan& group : quantizer_->plan().groups) {
      if (pace_ && group.name == name) pace_->done(Work::kProbe, probe_work(group), 0);
    }
  }
  return from.status();
}

double Sensitivity::loss(const std::string& group, const std::string& format) const {
  const auto found = measured_.find(group);
  if (found == measured_.end()) return 0;
  const bool is_layer = std::any_of(quantizer_->plan().groups.begin(), quantizer_->plan().groups.end(),
                                    [&](const GroupPlan& g) { return g.name == group && !g.is_embedding && !g.is_head; });
  return found->second * code_distortion(format) / code_distortion(is_layer ? kLayerProbe : kEmbeddingProbe);
}

}  // namespace sb
