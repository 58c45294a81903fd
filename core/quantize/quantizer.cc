#include "quantize/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/hash.h"
#include "base/host.h"
#include "formats/decode.h"
#include "io/folder_index.h"

namespace sb {
namespace {

/// Rows of a group as floats, from any thread; the first that holds NaN or infinity is remembered.
class GroupRows {
 public:
  explicit GroupRows(const GroupPlan& group) : group_(group) {}
  /// [n, K]
  void get(int64_t first, int64_t n, float* to) {
    for (int64_t r = first; r < first + n; ++r, to += group_.n_columns) {
      const auto [tensor, row] = place(r);
      decode_row(group_.views[tensor], row, to, group_.n_columns);
      if (std::all_of(to, to + group_.n_columns, [](float v) { return std::isfinite(v); })) continue;
      for (int64_t seen = bad_row_; r < seen && !bad_row_.compare_exchange_weak(seen, r);) {}
      std::fill_n(to, group_.n_columns, 0.0f);  // what is made of the others meanwhile is thrown away
    }
  }
  /// Errors: kWeightsNotFinite.
  Status status() const {
    if (bad_row_ == INT64_MAX) return {};
    const auto [tensor, row] = place(bad_row_);
    std::vector<float> weights(static_cast<size_t>(group_.n_columns));
    decode_row(group_.views[tensor], row, weights.data(), group_.n_columns);
    const auto bad = std::find_if(weights.begin(), weights.end(), [](float v) { return !std::isfinite(v); });
    return err(Code::kWeightsNotFinite,
               {{"tensor", group_.tensors[tensor]}, {"file", "the source"}, {"index", row * group_.n_columns + (bad - weights.begin())}});
  }

 private:
  struct Place {
    size_t tensor;
    int64_t row;
  };
  Place place(int64_t row) const {
    size_t tensor = 0;
    while (row >= group_.n_rows[tensor]) row -= group_.n_rows[tensor++];
    return {tensor, row};
  }
  const GroupPlan& group_;
  std::atomic<int64_t> bad_row_{INT64_MAX};
};

/// Rows of Q8_0 blocks: 32 weights, one f16 scale, nearest integers.
std::vector<std::byte> rows8_of(GroupRows& rows, const GroupPlan& group) {
  const int64_t k = group.n_columns, row_bytes = dtype_bytes(Dtype::kQ8_0, k);
  SB_ASSERT(k % 32 == 0);
  std::vector<std::byte> out(size_t(group.rows() * row_bytes));
  std::vector<float> weights(static_cast<size_t>(k));
  std::byte* to = out.data();
  for (int64_t r = 0; r < group.rows(); ++r) {
    rows.get(r, 1, weights.data());
    for (size_t i = 0; i < weights.size(); i += 32, to += 34) {
      float top = 0;
      for (size_t j = 0; j < 32; ++j) top = std::max(top, std::abs(weights[i + j]));
      const uint16_t scale = float_to_half(top / 127);
      const float inverse = half_to_float(scale) > 0 ? 1 / half_to_float(scale) : 0;
      std::memcpy(to, &scale, 2);
      for (size_t j = 0; j < 32; ++j) to[2 + j] = std::byte(int8_t(std::clamp(std::round(weights[i + j] * inverse), -127.0f, 127.0f)));
    }
  }
  return out;
}

/// What a window adds to a group's moments: `input` and `stream` as a quantised prefix gives them, beside the exact ones.
void add_moments(const GroupPlan& group, std::span<const float> exact_input, std::span<const float> exact_stream,
                 std::span<const float> input, std::span<const float> stream, ThreadPool& pool, Moments& moments) {
  const int64_t k = group.n_columns;
  moments.add(input, k, pool);
  moments.add_cross(exact_input, input, k, pool);
  if (stream.empty()) return;
  Booked<float> lost(exact_stream.begin(), exact_stream.end());
  for (size_t i = 0; i < lost.size(); ++i) lost[i] -= stream[i];
  moments.add_stream(lost, group.rows(), input, k, pool);
}

/// The rotation of a matrix depends on its name, not on the order of work.
uint64_t seed_of(uint64_t seed, const std::string& name) { return hash_of(name, kHashBegin ^ seed); }

/// Embeddings and heads, which alone are much taller than they are wide, and meet neither a correction nor a refinement.
bool is_in_parts(const GroupPlan& group) { return (group.is_embedding || group.is_head) && group.rows() > PartRows::kWhole; }

/// The work that a group is (quantize/pace.h).
struct WorkOf {
  double run = 0, sums = 0, search = 0;
  WorkOf(const GroupPlan& group, const QuantizerOptions& options, size_t n_windows) {
    const double tokens = double(n_windows) * double(options.context), k = double(group.n_columns);
    const std::string& format = options.formats.of(group);
    const bool is_layer = !group.is_embedding && !group.is_head;
    const double n_prefixes = options.formats.refine.empty() ? 1 : 2;
    if (is_layer) run = double(group.n_weights()) * tokens * (options.sequential ? 1 + n_prefixes : 1);
    if (format == "source") return;
    if (is_layer || group.is_head) sums = tokens * k * k * (options.sequential && is_layer ? 1.5 * n_prefixes : 0.5);
    search = double(group.n_weights()) * search_cost(format.c_str());
    if (is_layer && !options.formats.refine.empty()) search += double(group.n_weights()) * search_cost(options.formats.refine.c_str());
  }
};

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
    : graph_(graph), device_(device), options_(std::move(options)), pool_(options_.n_threads), exact_(0) {}

Result<std::unique_ptr<Quantizer>> Quantizer::create(const ModelGraph& graph, Device& device, std::span<const int32_t> ids,
                                                     std::span<const int32_t> prefix, QuantizerOptions options) {
  std::unique_ptr<Quantizer> q(new Quantizer(graph, device, std::move(options)));
  SB_TRY(q->plan_, plan_matrices(graph));
  for (const GroupPlan& group : q->plan_.groups) {
    const std::string& format = q->options_.formats.of(group);
    SB_OK(check_format(group, format));
  }
  q->windows_ = windows_of(ids, q->options_.context, prefix);
  if (q->windows_.empty())
    return err(Code::kTextTooShort, {{"n_tokens", ids.size()}, {"needed", q->options_.context - int64_t(prefix.size())}});
  const bool refines = !q->options_.formats.refine.empty();
  SB_ASSERT(q->options_.sequential || !refines);
  q->exact_ = KeptWindows(q->windows_.size(), q->options_.aside);
  q->prefixes_.assign(refines ? 2 : 1, {KeptWindows(q->options_.sequential ? q->windows_.size() : 0, q->options_.aside), {}});
  if (q->options_.pace) expect(q->plan_, q->options_, q->windows_.size(), *q->options_.pace);
  return q;
}

void Quantizer::expect(const ModelPlan& plan, const QuantizerOptions& options, size_t n_windows, Pace& pace) {
  for (const GroupPlan& group : plan.groups) {
    const WorkOf work(group, options, n_windows);
    pace.expect(Work::kRun, work.run);
    pace.expect(Work::kSums, work.sums);
    pace.expect(Work::kSearch, work.search);
  }
}

QuantizerBytes quantizer_bytes(const ModelPlan& plan, const QuantizerOptions& options, int64_t hidden, size_t n_windows) {
  QuantizerBytes out;
  const uint64_t n_prefixes = options.formats.refine.empty() ? 1 : 2;
  const uint64_t n_tokens = n_windows * uint64_t(options.context), models = options.sequential ? 1 + n_prefixes : 1, d = uint64_t(hidden);
  for (const GroupPlan& group : plan.groups) {
    const bool is_layer = !group.is_embedding && !group.is_head;
    const uint64_t k = uint64_t(group.n_columns);
    // The stream and the group's input, in float16, with a scale a row; of what lies aside the value that is on its way.
    if (is_layer) {
      const uint64_t kept = options.aside ? uint64_t(options.context) * (2 * std::max(k, d) + 4) : n_tokens * (2 * (k + d) + 8);
      out.state = std::max(out.state, models * kept);
    }
    // A run's input or output, and of the exact one the group's input and the stream to compare with.
    if (is_layer) {
      out.window = std::max(out.window, 4 * uint64_t(options.context) * (models * std::max(k, d) + (options.sequential ? 2 : 0) * (k + d)));
    }
    if (options.formats.of(group) == "source" || options.formats.of(group) == kRows8) continue;
    const bool makes_up = options.sequential && is_layer, joins = makes_up && group.rows() == hidden;
    const uint64_t wide = uint64_t(plane_columns(group.n_columns));
    const uint64_t rows = uint64_t(is_in_parts(group) ? std::max(PartRows{}.part, PartRows{}.sample) : plane_rows(group.rows()));
    // Of the refinement own and cross moment wait while the base is encoded.
    const uint64_t waits = is_layer && n_prefixes > 1 ? 2 * k * k + (joins ? d * k : 0) : 0;
    uint64_t& most = is_layer ? out.group : out.head;
    const uint64_t squares = makes_up && !options.aside ? 3 : 2;
    most = std::max(most, 4 * (squares * wide * wide + (joins ? d * k : 0) + rows * wide + waits));
  }
  return out;
}

std::vector<const GroupPlan*> Quantizer::groups_of(int64_t layer) const {
  std::vector<const GroupPlan*> groups;
  for (const GroupPlan& group : plan_.groups) {
    if (group.layer == layer) groups.push_back(&group);
  }
  return groups;
}

std::vector<float> Quantizer::x(size_t window) {
  std::vector<float> out(size_t(options_.context * graph_.shape().hidden));
  exact_.load(window, 0, out);
  return out;
}

Result<bool> Quantizer::step() {
  if (layer_ > plan_.n_layers) return false;
  if (group_ == 0 && layer_ != 0 && !options_.keeps_finished) {  // layer 0 reads the embedding
    for (Prefix& prefix : prefixes_) prefix.substitutes.clear();
    alive_.clear();
  }
  if (layer_ < 0) {
    SB_OK(embed());
    ++layer_;
  } else if (layer_ == plan_.n_layers) {
    SB_OK(head());
    forget_windows();
    ++layer_;
  } else {
    const std::vector<const GroupPlan*> groups = groups_of(layer_);
    SB_ASSERT(!groups.empty());
    SB_OK(layer_group(*groups[group_]));
    if (++group_ >= groups.size()) {
      // What the layer makes of its last product.
      SB_OK(run_stage({options_.context, Pass::Logits::kNone, false, layer_, layer_ + 1}, int64_t(group_), {}, nullptr));
      group_ = 0;
      ++layer_;
    }
  }
  if (options_.aside) SB_OK(options_.aside->status());
  return layer_ <= plan_.n_layers;
}

Status Quantizer::embed() {
  // An embedding that is no head: its inputs are single rows, each as likely as its token; no direction counts more than another.
  for (const GroupPlan& group : plan_.groups) {
    if (group.layer >= 0 || group.is_head || is_kept(group)) continue;
    Moments moments = Moments::identity(group.n_columns);
    SB_TRY(auto done, encode_group(group, {&moments, 1}));
    finish(std::move(done), group);
  }
  return {};
}

// What reaches a group has gone through all that is quantised before it, in this layer too.
Status Quantizer::layer_group(const GroupPlan& group) {
  std::vector<Moments> moments(is_kept(group) ? 0 : prefixes_.size());
  SB_OK(run_stage({options_.context, Pass::Logits::kNone, false, layer_, layer_ + 1}, int64_t(group_), moments, &group));
  if (is_kept(group)) return {};
  for (Moments& m : moments) m.close(group.n_columns);
  SB_TRY(auto done, encode_group(group, moments));
  finish(std::move(done), group);
  return {};
}

Status Quantizer::run_stage(const Pass& pass, int64_t stage, std::span<Moments> moments, const GroupPlan* group) {
  SB_TRY(Stretch exact, Stretch::compile(graph_, device_, pass, {}, {.stage = stage}));
  std::vector<Stretch> own;
  for (const Prefix& prefix : prefixes_) {
    if (!options_.sequential) break;
    SB_TRY(Stretch compiled, Stretch::compile(graph_, device_, pass, prefix.substitutes, {.stage = stage}));
    own.push_back(std::move(compiled));
  }
  auto run = [&](Stretch& stretch, KeptWindows& windows, size_t w) -> Status {
    SB_OK(stretch.run_stage(
        windows_[w], [&](size_t i, std::span<float> to) { windows.load(w, i, to); },
        [&](size_t i, std::span<const float> value) { windows.store(w, i, stretch.kept()[i], value); }));
    windows.shrink(w, stretch.kept().size());
    return {};
  };
  const std::string name = std::to_string(stage);
  double run_ms = 0, sums_ms = 0;
  Booked<float> exact_input, exact_stream;
  for (size_t w = 0; w < windows_.size(); ++w) {
    double began = host_now_ms();
    auto lap = [&](double& ms) {
      const double now = host_now_ms();
      ms += now - std::exchange(began, now);
    };
    SB_OK(run(exact, exact_, w));
    lap(run_ms);
    const std::span<const float> input = exact.output("group." + name), stream = exact.output("residual." + name);
    if (!options_.sequential) {
      if (!moments.empty()) moments[0].add(input, group->n_columns, pool_);
      lap(sums_ms);
      continue;
    }
    // The device's memory is one for all programs: what the next run would overwrite is copied.
    if (!moments.empty()) {
      exact_input.assign(input.begin(), input.end());
      exact_stream.assign(stream.begin(), stream.end());
    }
    for (size_t p = 0; p < own.size(); ++p) {
      SB_OK(run(own[p], prefixes_[p].kept, w));
      lap(run_ms);
      if (moments.empty()) continue;
      add_moments(*group, exact_input, exact_stream, own[p].output("group." + name), own[p].output("residual." + name), pool_, moments[p]);
      lap(sums_ms);
    }
  }
  if (!options_.pace) return {};
  // A stage begins with the product of the group before; it is counted there.
  const std::vector<const GroupPlan*> groups = groups_of(layer_);
  if (stage > 0 && size_t(stage) <= groups.size()) {
    options_.pace->done(Work::kRun, WorkOf(*groups[size_t(stage - 1)], options_, windows_.size()).run, run_ms);
  }
  if (!moments.empty()) options_.pace->done(Work::kSums, WorkOf(*group, options_, windows_.size()).sums, sums_ms);
  return {};
}

Status Quantizer::head() {
  const GroupPlan* group = nullptr;
  for (const GroupPlan& g : plan_.groups) {
    if (g.is_head) group = &g;
  }
  if (!group || is_kept(*group)) return {};
  // The head's input, without its product: what the stream that it will get looks like.
  SB_TRY(Stretch stretch,
         Stretch::compile(graph_, device_, {options_.context, Pass::Logits::kAll, false, plan_.n_layers, -1}, {}, {.stage = 0}));
  // A head has no refinement: it is the base's.
  KeptWindows& seen = options_.sequential ? prefixes_.front().kept : exact_;
  Moments moments;
  const double began = host_now_ms();
  for (size_t w = 0; w < windows_.size(); ++w) {
    SB_OK(stretch.run_stage({}, [&](size_t i, std::span<float> to) { seen.load(w, i, to); }, [](size_t, std::span<const float>) {}));
    moments.add(stretch.output("group.0"), group->n_columns, pool_);
  }
  if (options_.pace) options_.pace->done(Work::kSums, WorkOf(*group, options_, windows_.size()).sums, host_now_ms() - began);
  moments.close(group->n_columns);
  forget_windows();  // the text has done its work
  SB_TRY(auto done, encode_group(*group, {&moments, 1}));
  finish(std::move(done), *group);
  return {};
}

Result<std::shared_ptr<FinishedGroup>> Quantizer::encode_group(const GroupPlan& group, std::span<Moments> moments) {
  const double began = host_now_ms();
  auto done = std::make_shared<FinishedGroup>();
  FinishedGroup& out = *done;
  out.name = group.name;
  out.format = options_.formats.of(group);
  if (is_refined(group)) out.refine = options_.formats.refine;
  GroupRows rows(group);
  if (out.format == kRows8) {
    out.rows8 = rows8_of(rows, group);
    SB_OK(rows.status());
  } else {
    const int64_t k = group.n_columns;
    const uint64_t seed = seed_of(options_.seed, group.name);
    const auto failed = [&] { return err(Code::kCalibrationFailed, {{"matrix", group.name}}); };
    RotatedMatrix m;
    // W' and H' for one plane set. False when the moments have no factor.
    auto take = [&](Moments& of) {
      m = {};
      Correction correction;
      const bool corrects = !of.cross.empty();
      // The correction turns H into its factor; the encoder wants H itself.
      Booked<float> own;
      ScratchSpace* aside = corrects ? options_.aside : nullptr;
      if (aside) {
        aside->fit(own_moment_, of.own.size() * sizeof(float));
        aside->keep(own_moment_.offset, of.own);
      } else if (corrects) {
        own = of.own;
      } else {
        own = std::move(of.own);
      }
      if (corrects && !Correction::prepare(of, k, pool_, correction)) return false;
      m.shape(group.rows(), k, seed);
      m.take_rows(
          [&](int64_t first, int64_t count, float* to) {
            rows.get(first, count, to);
            if (corrects) correction.apply(first, count, to);
          },
          group.rows(), k, pool_);
      correction = {};
      of.stream = {};
      if (aside) {
        own.resize(size_t(k * k));
        aside->bring(own_moment_.offset, own);
      }
      return m.take_moment(std::move(own), k, pool_);
    };
    const PlaneCode& code = plane_format(out.format)->code;
    if (is_in_parts(group)) {
      const auto source = [&](int64_t first, int64_t count, float* to) { rows.get(first, count, to); };
      const bool is_usable = encode_in_parts(source, group.rows(), k, seed, std::move(moments[0].own), code, {}, pool_, m, out.base);
      SB_OK(rows.status());
      if (!is_usable) return failed();
    } else {
      const bool is_usable = take(moments[0]);
      SB_OK(rows.status());
      if (!is_usable) return failed();
      out.base = encode(m, std::move(m.weights), code, pool_);
    }
    if (!out.refine.empty()) {
      // What makes up for the losses of base and refinement together is not what made up for the base's: W' is made anew.
      if (!take(moments[1])) return failed();
      subtract(m, out.base, m.weights, pool_);
      out.refinement = encode(m, std::move(m.weights), plane_format(out.refine)->code, pool_);
    }
    out.signs = std::move(m.signs);
    out.matrix = out.base_matrix = {m.n_rows, m.n_columns, m.segment, m.hadamard_block, nullptr, 1, 1, {}};
  }
  out.bind();
  if (options_.pace) options_.pace->done(Work::kSearch, WorkOf(group, options_, windows_.size()).search, host_now_ms() - began);
  return done;
}

void Quantizer::forget_windows() {
  exact_ = KeptWindows(0);
  for (Prefix& prefix : prefixes_) prefix.kept = KeptWindows(0);
}

std::vector<KeptWindows*> Quantizer::kept() {
  std::vector<KeptWindows*> all{&exact_};
  for (Prefix& prefix : prefixes_) all.push_back(&prefix.kept);
  return all;
}

namespace {

void save_set(const EncodedSet& set, CheckpointWriter& to) {
  to.array(set.words);
  to.array(set.row_scale);
  to.array(set.column_scale);
  to.real(set.error);
  to.real(set.power);
}
void restore_set(const std::string& format, CheckpointReader& from, EncodedSet& set) {
  const PlaneFormat* known = plane_format(format);
  if (!known) return from.fail();
  set.code = known->code;
  from.array(set.words);
  from.array(set.row_scale);
  from.array(set.column_scale);
  set.error = from.real();
  set.power = from.real();
}

}  // namespace

void Quantizer::save(CheckpointWriter& to) {
  to.number(uint64_t(layer_ + 1));
  to.number(group_);
  for (KeptWindows* kept : kept()) kept->save(to);
  to.number(alive_.size());
  for (const std::shared_ptr<FinishedGroup>& group : alive_) {
    for (const std::string* s : {&group->name, &group->format, &group->refine}) to.text(*s);
    if (group->format == kRows8) {
      to.array(group->rows8);
      continue;
    }
    to.array(group->signs);
    save_set(group->base, to);
    if (!group->refine.empty()) save_set(group->refinement, to);
  }
}

Status Quantizer::restore(CheckpointReader& from) {
  SB_ASSERT(layer_ < 0 && group_ == 0);
  layer_ = int64_t(from.number()) - 1;
  group_ = size_t(from.number());
  for (KeptWindows* kept : kept()) {
    kept->restore(from);
    if (kept == &exact_ && kept->size() == 0 && layer_ <= plan_.n_layers) from.fail();
  }
  for (size_t n = from.count(); n > 0; --n) {
    auto done = std::make_shared<FinishedGroup>();
    done->name = from.text();
    done->format = from.text();
    done->refine = from.text();
    const auto found = std::find_if(plan_.groups.begin(), plan_.groups.end(), [&](const GroupPlan& g) { return g.name == done->name; });
    if (found == plan_.groups.end()) {
      from.fail();
      break;
    }
    if (done->format == kRows8) {
      from.array(done->rows8);
    } else {
      const int64_t rows = plane_rows(found->rows()), columns = plane_columns(found->n_columns);
      from.array(done->signs);
      restore_set(done->format, from, done->base);
      if (!done->refine.empty()) restore_set(done->refine, from, done->refinement);
      done->matrix = done->base_matrix = {rows, columns, plane_segment(rows), plane_hadamard(found->n_columns), nullptr, 1, 1, {}};
      for (const EncodedSet* set : {&done->base, &done->refinement}) {
        if (set->code.n_planes == 0) continue;
        if (int64_t(set->words.size()) != rows * set->code.n_planes * (columns / 32) || int64_t(set->row_scale.size()) != rows ||
            int64_t(set->column_scale.size()) != columns)
          from.fail();
      }
    }
    SB_OK(from.status());
    done->bind();
    finish(std::move(done), *found);
  }
  finished_.clear();
  SB_OK(from.status());
  if (layer_ > plan_.n_layers + 1 || group_ > groups_of(layer_).size()) from.fail();
  SB_OK(from.status());
  // What was done then takes no time now.
  if (options_.pace) {
    for (const GroupPlan& group : plan_.groups) {
      const std::vector<const GroupPlan*> groups = groups_of(layer_);
      const bool is_done = group.layer < layer_ ||
                           (group.layer == layer_ && std::find(groups.begin(), groups.end(), &group) < groups.begin() + int64_t(group_));
      if (!is_done || (group.layer < 0 && group.is_head)) continue;
      const WorkOf work(group, options_, windows_.size());
      options_.pace->done(Work::kRun, work.run, 0);
      options_.pace->done(Work::kSums, work.sums, 0);
      options_.pace->done(Work::kSearch, work.search, 0);
    }
  }
  return {};
}

void FinishedGroup::bind() {
  if (format == kRows8) return;
  matrix.signs = signs.empty() ? nullptr : signs.data();
  matrix.sets[0] = base.view();
  base_matrix = matrix;
  if (refine.empty()) return;
  matrix.sets[1] = refinement.view();
  matrix.n_sets = matrix.max_sets = 2;
}

void Quantizer::finish(std::shared_ptr<FinishedGroup> done, const GroupPlan& group) {
  for (Prefix& prefix : prefixes_) {
    const PlaneMatrix* matrix = &prefix == &prefixes_.back() ? &done->matrix : &done->base_matrix;
    int64_t first_row = 0;
    for (size_t i = 0; i < group.tensors.size(); ++i) {
      const int64_t n = group.n_rows[i], row_bytes = done->format == kRows8 ? dtype_bytes(Dtype::kQ8_0, group.n_columns) : 0;
      TensorView& view = prefix.substitutes[group.tensors[i]];
      if (done->format == kRows8) {
        view = {done->rows8.data() + first_row * row_bytes, Dtype::kQ8_0, {n, group.n_columns}, row_bytes, nullptr, 0};
      } else {
        view = {nullptr, Dtype::kPlanes, {n, group.n_columns}, 0, matrix, first_row};
      }
      first_row += n;
    }
  }
  alive_.push_back(done);
  finished_.push_back(std::move(done));
}

}  // namespace sb
