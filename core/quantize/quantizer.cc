#include "quantize/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "device/cpu/quantize_kernels.h"
#include "formats/decode.h"
#include "io/folder_index.h"

namespace sb {
namespace {

/// Adds Σ left xᵀ to `cross` [n, k]: left [n_tokens, n], x [n_tokens, k]. Threads take strips of rows as they come, the last first; with
/// `lower_only` each ends at its own last column, which is all that a symmetric sum needs.
void add_cross(std::span<const float> left, int64_t n, std::span<const float> x, int64_t k, std::vector<float>& cross, ThreadPool& pool,
               bool lower_only = false) {
  constexpr int64_t kStrip = 96;
  const int64_t n_tokens = int64_t(x.size()) / k, n_strips = (n + kStrip - 1) / kStrip;
  std::atomic<int64_t> next{n_strips};
  pool.run([&](int) {
    for (int64_t strip; (strip = next.fetch_sub(1, std::memory_order_relaxed) - 1) >= 0;) {
      const int64_t begin = strip * kStrip, end = std::min(n, begin + kStrip);
      quantize_kernels().product({.a = left.data() + begin,
                                  .a_row = 1,
                                  .a_step = n,
                                  .b = x.data(),
                                  .b_row = k,
                                  .c = cross.data() + begin * k,
                                  .c_row = k,
                                  .n_sum = n_tokens,
                                  .n_rows = end - begin,
                                  .n_columns = lower_only ? end : k});
    }
  });
}

/// Adds Σ x xᵀ of x [n_tokens, k] to the lower triangle of `moment` [k, k].
void add_moment(std::span<const float> x, int64_t k, std::vector<float>& moment, ThreadPool& pool) {
  add_cross(x, k, x, k, moment, pool, true);
}

/// The lower triangle to both, divided by the tokens counted.
void close_moment(std::vector<float>& moment, int64_t k, int64_t n_tokens) {
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const float v = moment[size_t(i * k + j)] / float(n_tokens);
      moment[size_t(i * k + j)] = moment[size_t(j * k + i)] = v;
    }
  }
}

/// All rows of a group as floats [N, K]. Errors: kWeightsNotFinite.
Result<std::vector<float>> floats_of(const GroupPlan& group) {
  std::vector<float> out(size_t(group.n_weights()));
  float* to = out.data();
  for (size_t i = 0; i < group.tensors.size(); ++i) {
    for (int64_t r = 0; r < group.n_rows[i]; ++r, to += group.n_columns) {
      decode_row(group.views[i], r, to, group.n_columns);
      for (int64_t j = 0; j < group.n_columns; ++j) {
        if (!std::isfinite(to[j]))
          return err(Code::kWeightsNotFinite, {{"tensor", group.tensors[i]}, {"file", "the source"}, {"index", r * group.n_columns + j}});
      }
    }
  }
  return out;
}

/// Rows of Q8_0 blocks: 32 weights, one f16 scale, nearest integers.
std::vector<std::byte> rows8_of(const std::vector<float>& weights, int64_t k) {
  std::vector<std::byte> out(weights.size() / 32 * 34);
  std::byte* to = out.data();
  for (size_t i = 0; i + 32 <= weights.size(); i += 32, to += 34) {
    float top = 0;
    for (size_t j = 0; j < 32; ++j) top = std::max(top, std::abs(weights[i + j]));
    const uint16_t scale = float_to_half(top / 127);
    const float inverse = half_to_float(scale) > 0 ? 1 / half_to_float(scale) : 0;
    std::memcpy(to, &scale, 2);
    for (size_t j = 0; j < 32; ++j) to[2 + j] = std::byte(int8_t(std::clamp(std::round(weights[i + j] * inverse), -127.0f, 127.0f)));
  }
  SB_ASSERT(k % 32 == 0);
  return out;
}

uint64_t seed_of(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xCBF29CE484222325u ^ seed;  // FNV-1a: the rotation of a matrix depends on its name, not on the order of work
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001B3u;
  return hash;
}

}  // namespace

const std::string& FormatChoice::of(const GroupPlan& group) const {
  if (auto found = by_name.find(group.name); found != by_name.end()) return found->second;
  return group.is_embedding || group.is_head ? embedding : linears;
}

Status check_format(const GroupPlan& group, const std::string& format) {
  if (format != "source" && format != kRows8 && !plane_format(format))
    return err(Code::kFormatUnknown, {{"format", format}, {"matrix", group.name}});
  if (format == kRows8 && group.n_columns % 32) {
    return err(Code::kFormatUnfit, {{"format", format},
                                    {"matrix", group.name},
                                    {"why", "its rows of " + std::to_string(group.n_columns) + " weights are no whole blocks of 32"}});
  }
  return {};
}

Quantizer::Quantizer(const ModelGraph& graph, Device& device, QuantizerOptions options)
    : graph_(graph), device_(device), options_(std::move(options)), pool_(options_.n_threads) {}

Result<std::unique_ptr<Quantizer>> Quantizer::create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                     std::span<const int32_t> prefix, QuantizerOptions options) {
  std::unique_ptr<Quantizer> q(new Quantizer(graph, device, std::move(options)));
  SB_TRY(q->plan_, plan_matrices(graph));
  for (const GroupPlan& group : q->plan_.groups) {
    const std::string& format = q->options_.formats.of(group);
    SB_OK(check_format(group, format));
    if (format != "source") q->n_weights_ += group.n_weights();
  }
  q->windows_ = windows_of(ids, q->options_.context, prefix);
  if (q->windows_.empty())
    return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", q->options_.context - int64_t(prefix.size())}});
  return q;
}

double Quantizer::progress() const { return n_weights_ ? double(n_encoded_) / double(n_weights_) : 1; }

Result<bool> Quantizer::step() {
  if (next_ > plan_.n_layers) return false;
  if (next_ < 0) {
    SB_OK(embed());
  } else if (next_ < plan_.n_layers) {
    SB_OK(layer(next_));
  } else {
    SB_OK(head());
  }
  ++next_;
  return next_ <= plan_.n_layers;
}

Status Quantizer::embed() {
  SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, {options_.context, Pass::Logits::kNone, false, 0, 0}));
  for (const std::vector<int32_t>& window : windows_) {
    SB_OK(stretch.run({}, window));
    const std::span<const float> y = stretch.output("y");
    x_.emplace_back(y.begin(), y.end());
    if (options_.sequential) exact_x_.push_back(x_.back());
  }
  // An embedding that is no head: its inputs are single rows, each as likely as its token; no direction counts more than another.
  for (const GroupPlan& group : plan_.groups) {
    if (group.layer >= 0 || group.is_head || options_.formats.of(group) == "source") continue;
    std::vector<float> identity(size_t(group.n_columns * group.n_columns), 0.0f);
    for (int64_t i = 0; i < group.n_columns; ++i) identity[size_t(i * group.n_columns + i)] = 1;
    SB_TRY(auto done, encode_groups({&group}, {identity}));
    for (auto& d : done) finish(std::move(d), group);
  }
  return {};
}

Status Quantizer::layer(int64_t i) {
  std::vector<const GroupPlan*> groups;
  for (const GroupPlan& group : plan_.groups) {
    if (group.layer == i) groups.push_back(&group);
  }
  return options_.sequential ? layer_in_turn(i, groups) : layer_alone(i, groups);
}

Status Quantizer::layer_alone(int64_t i, const std::vector<const GroupPlan*>& groups) {
  SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, {options_.context, Pass::Logits::kNone, false, i, i + 1}, {}, {.all = true}));
  std::vector<std::vector<float>> moments;
  for (const GroupPlan* group : groups) moments.emplace_back(size_t(group->n_columns * group->n_columns), 0.0f);
  for (size_t w = 0; w < x_.size(); ++w) {
    SB_OK(stretch.run(x_[w], windows_[w]));
    for (size_t g = 0; g < groups.size(); ++g)
      add_moment(stretch.output("group." + std::to_string(g)), groups[g]->n_columns, moments[g], pool_);
    const std::span<const float> y = stretch.output("y");
    x_[w].assign(y.begin(), y.end());
  }
  std::vector<const GroupPlan*> encoded;
  std::vector<std::vector<float>> their_moments;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (options_.formats.of(*groups[g]) == "source") continue;
    close_moment(moments[g], groups[g]->n_columns, int64_t(x_.size()) * options_.context);
    encoded.push_back(groups[g]);
    their_moments.push_back(std::move(moments[g]));
  }
  SB_TRY(auto done, encode_groups(encoded, their_moments));
  for (size_t g = 0; g < done.size(); ++g) finish(std::move(done[g]), *encoded[g]);
  return {};
}

// Group by group: what reaches a group has gone through all that is quantised before it, in this layer too.
Status Quantizer::layer_in_turn(int64_t i, const std::vector<const GroupPlan*>& groups) {
  const Pass pass{options_.context, Pass::Logits::kNone, false, i, i + 1};
  const size_t n_windows = x_.size();
  const float per_token = 1 / float(int64_t(n_windows) * options_.context);

  // In the source model: each group's input and the stream it joins, kept for all windows, and x of the next layer.
  std::vector<std::vector<std::vector<float>>> exact(groups.size()), exact_stream(groups.size());  // [group][window] → [T, K], [T, N]
  std::vector<bool> joins(groups.size());
  {
    SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, pass, {}, {.all = true}));
    for (size_t g = 0; g < groups.size(); ++g) joins[g] = stretch.groups()[g].residual >= 0;
    for (size_t w = 0; w < n_windows; ++w) {
      SB_OK(stretch.run(exact_x_[w], windows_[w]));
      for (size_t g = 0; g < groups.size(); ++g) {
        const std::span<const float> u = stretch.output("group." + std::to_string(g));
        exact[g].emplace_back(u.begin(), u.end());
        if (!joins[g]) continue;
        const std::span<const float> r = stretch.output("residual." + std::to_string(g));
        exact_stream[g].emplace_back(r.begin(), r.end());
      }
      const std::span<const float> y = stretch.output("y");
      exact_x_[w].assign(y.begin(), y.end());
    }
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    const GroupPlan& group = *groups[g];
    if (options_.formats.of(group) == "source") continue;
    const int64_t k = group.n_columns, n = group.rows();
    SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, pass, substitutes_, {.until = int64_t(g)}));
    std::vector<std::vector<float>> moment(1, std::vector<float>(size_t(k * k), 0.0f));
    std::vector<float> cross(size_t(k * k), 0.0f), stream(joins[g] ? size_t(n * k) : 0, 0.0f);
    for (size_t w = 0; w < n_windows; ++w) {
      SB_OK(stretch.run(x_[w], windows_[w]));
      const std::span<const float> u = stretch.output("group." + std::to_string(g));
      add_moment(u, k, moment[0], pool_);
      add_cross(exact[g][w], k, u, k, cross, pool_);
      if (joins[g]) {
        const std::span<const float> r = stretch.output("residual." + std::to_string(g));
        for (size_t e = 0; e < r.size(); ++e) exact_stream[g][w][e] -= r[e];
        add_cross(exact_stream[g][w], n, u, k, stream, pool_);
      }
      exact[g][w] = {};
    }
    close_moment(moment[0], k, int64_t(n_windows) * options_.context);
    for (float& v : cross) v *= per_token;
    for (float& v : stream) v *= per_token;
    SB_TRY(auto done, encode_groups({&group}, moment, {{cross.data(), joins[g] ? stream.data() : nullptr}}));
    finish(std::move(done[0]), group);
  }
  SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, pass, substitutes_));
  for (size_t w = 0; w < n_windows; ++w) {
    SB_OK(stretch.run(x_[w], windows_[w]));
    const std::span<const float> y = stretch.output("y");
    x_[w].assign(y.begin(), y.end());
  }
  return {};
}

Status Quantizer::head() {
  const GroupPlan* group = nullptr;
  for (const GroupPlan& g : plan_.groups) {
    if (g.is_head) group = &g;
  }
  if (!group || options_.formats.of(*group) == "source") return {};
  // The head's input without its product: one token at a time would be slow, so the plan is built for few and their input watched.
  constexpr int64_t kTokens = 64;
  SB_TRY(Stretch stretch, Stretch::compile(graph_, device_, {kTokens, Pass::Logits::kAll, false, plan_.n_layers, -1}, {}, {.all = true}));
  const int64_t d = group->n_columns;
  std::vector<float> moment(size_t(d * d), 0.0f);
  int64_t n_tokens = 0;
  // The moment of a head needs no more tokens than give every direction a few hundred looks; its product is the most expensive of all.
  const size_t most_windows = size_t(std::max<int64_t>(1, 16384 / options_.context));
  for (size_t w = 0; w < std::min(x_.size(), most_windows); ++w) {
    for (int64_t t = 0; t + kTokens <= options_.context; t += kTokens) {
      SB_OK(stretch.run(std::span(x_[w]).subspan(size_t(t * d), size_t(kTokens * d)), {}));
      add_moment(stretch.output("group.0"), d, moment, pool_);
      n_tokens += kTokens;
    }
  }
  close_moment(moment, d, n_tokens);
  SB_TRY(auto done, encode_groups({group}, {moment}));
  finish(std::move(done[0]), *group);
  return {};
}

Result<std::vector<std::shared_ptr<FinishedGroup>>> Quantizer::encode_groups(const std::vector<const GroupPlan*>& groups,
                                                                             const std::vector<std::vector<float>>& moments,
                                                                             const std::vector<Correction>& corrections) {
  struct Work {
    RotatedMatrix rotated;
    EncodeWork encode;
    std::vector<float> left;
    std::vector<std::byte> rows8;
    std::shared_ptr<FinishedGroup> out = std::make_shared<FinishedGroup>();
    std::optional<Error> error;
  };
  std::vector<Work> works(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    works[g].out->name = groups[g]->name;
    works[g].out->format = options_.formats.of(*groups[g]);
    if (!groups[g]->is_embedding && !groups[g]->is_head) works[g].out->refine = options_.formats.refine;
  }
  auto rotate = [&](size_t g) {
    auto weights = floats_of(*groups[g]);
    if (!weights) {
      works[g].error = weights.error();
      return;
    }
    if (works[g].out->format == kRows8) {
      works[g].rows8 = rows8_of(*weights, groups[g]->n_columns);
      return;
    }
    if (!corrections.empty() && !correct(*weights, groups[g]->rows(), groups[g]->n_columns, moments[g].data(), corrections[g])) {
      works[g].error = Error(Code::kCalibrationFailed, {{"matrix", groups[g]->name}});
      return;
    }
    if (!RotatedMatrix::rotate(weights->data(), groups[g]->rows(), groups[g]->n_columns, moments[g].data(),
                               seed_of(options_.seed, groups[g]->name), works[g].rotated)) {
      works[g].error = Error(Code::kCalibrationFailed, {{"matrix", groups[g]->name}});
    }
  };
  auto work = [&](size_t g, const Team& team) {
    Work& w = works[g];
    FinishedGroup& out = *w.out;
    if (out.format == kRows8) {
      if (team.thread == 0) out.rows8 = std::move(w.rows8);
      return;
    }
    const PlaneCode& code = plane_format(out.format)->code;
    encode(w.rotated, nullptr, code, team, w.encode, out.base);
    if (out.refine.empty()) return;
    if (team.thread == 0) w.left = residual(w.rotated, out.base);
    team.meet();
    encode(w.rotated, w.left.data(), plane_format(out.refine)->code, team, w.encode, out.refinement);
  };
  // Whole groups to single threads, the largest first to whoever has least; where that would leave threads idle, all of them to each group.
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return std::pair(-groups[a]->n_weights(), a) < std::pair(-groups[b]->n_weights(), b); });
  std::vector<std::vector<size_t>> shares(size_t(pool_.size()));
  std::vector<int64_t> loads(shares.size(), 0);
  int64_t total = 0;
  for (size_t g : order) {
    const size_t least = size_t(std::min_element(loads.begin(), loads.end()) - loads.begin());
    shares[least].push_back(g);
    loads[least] += groups[g]->n_weights();
    total += groups[g]->n_weights();
  }
  if (*std::max_element(loads.begin(), loads.end()) * pool_.size() <= total + total / 5) {
    pool_.run([&](int thread) {
      for (size_t g : shares[size_t(thread)]) {
        rotate(g);
        if (!works[g].error) work(g, {});
      }
    });
  } else {
    SpinBarrier barrier(pool_.size());
    pool_.run([&](int thread) {
      for (size_t g = size_t(thread); g < groups.size(); g += size_t(pool_.size())) rotate(g);
    });
    for (size_t g = 0; g < groups.size(); ++g) {
      if (!works[g].error) pool_.run([&](int thread) { work(g, {thread, pool_.size(), &barrier}); });
    }
  }

  std::vector<std::shared_ptr<FinishedGroup>> done;
  for (Work& w : works) {
    if (w.error) return err(*w.error);
    FinishedGroup& out = *w.out;
    out.signs = std::move(w.rotated.signs);
    const RotatedMatrix& m = w.rotated;
    if (out.format != kRows8)
      out.matrix = {m.n_rows, m.n_columns, m.segment, m.hadamard_block, out.signs.empty() ? nullptr : out.signs.data(), 1, 1, {}};
    out.matrix.sets[0] = out.base.view();
    if (!out.refine.empty()) {
      out.matrix.sets[1] = out.refinement.view();
      out.matrix.n_sets = out.matrix.max_sets = 2;
    }
    done.push_back(std::move(w.out));
  }
  return done;
}

void Quantizer::finish(std::shared_ptr<FinishedGroup> done, const GroupPlan& group) {
  int64_t first_row = 0;
  for (size_t i = 0; i < group.tensors.size(); ++i) {
    if (done->format == kRows8) {
      substitutes_[group.tensors[i]] = {done->rows8.data() + first_row * dtype_bytes(Dtype::kQ8_0, group.n_columns),
                                        Dtype::kQ8_0,
                                        {group.n_rows[i], group.n_columns},
                                        dtype_bytes(Dtype::kQ8_0, group.n_columns),
                                        nullptr,
                                        0};
      first_row += group.n_rows[i];
      continue;
    }
    substitutes_[group.tensors[i]] = {nullptr, Dtype::kPlanes, {group.n_rows[i], group.n_columns}, 0, &done->matrix, first_row};
    first_row += group.n_rows[i];
  }
  n_encoded_ += group.n_weights();
  alive_.push_back(done);
  finished_.push_back(std::move(done));
}

}  // namespace sb
