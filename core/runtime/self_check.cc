#include "runtime/self_check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "base/hash.h"
#include "base/host.h"
#include "runtime/random_weights.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

namespace sb {
namespace {

constexpr int32_t kPosition = 40;     // tokens in the cache before
constexpr int64_t kFewRows = 64;      // of a stretch's last matrix, whose every column is there
constexpr int64_t kEndRows = 512;     // of the matrix that makes logits: so many that kernels for wide rows take them
constexpr int64_t kFewColumns = 256;  // of its first, whose every row is there; a multiple of every block
constexpr double kMostMs = 8000;      // a GPU in software takes its time: what has not been checked by then is not

/// Every part of the kernels that choose tokens.
constexpr SamplerOptions kChoices[] = {{}, {.temperature = 1, .top_k = 20, .top_p = 0.9f, .min_p = 0.02f, .seed = 1}};

/// What two stretches must have in common to run the same kernels, as far as that can be told without lowering them.
void describe(const Plan& plan, const Node& node, std::string& to) {
  auto add = [&](std::string_view word) { (to += word) += ' '; };
  auto number = [&](int64_t n) { add(std::to_string(n)); };
  add(op_name(node.op));
  for (int32_t in : node.inputs) {
    if (in < 0) continue;
    const Value& v = plan.values()[size_t(in)];
    add(v.shape.text());
    if (v.kind == ValueKind::kWeight) add(dtype_name(v.dtype));
    if (v.alias_of >= 0) number(v.first_column);
    if (!v.weight.planes) continue;
    number(v.weight.planes->hadamard);
    for (int set = 0; set < v.weight.planes->n_sets; ++set) add(plane_format_name(v.weight.planes->sets[set].code));
  }
  if (const auto* op = std::get_if<Attention>(&node.op)) {
    for (int64_t n :
         {int64_t(op->n_heads), int64_t(op->n_kv_heads), int64_t(op->head_dim), int64_t(op->window > 0), int64_t(op->softcap > 0)})
      number(n);
  }
}

}  // namespace

/// From one matrix product to the next, both included: what lies between is fused with either. The first keeps its rows and few of its
/// columns, the last its columns and few of its rows, so that kernels meet the model's own widths and still have little to do.
struct SelfCheck::Stretch {
  std::string name;  // its ops, for errors
  int64_t n_tokens = 1;
  int32_t kv_width = 0;  // 0: no cache
  bool has_logits = false;
  size_t n_choices = 0;          // begun of kChoices
  std::vector<float> logits;     // as the device has them, which it chooses from
  bool attends = false;          // one token's attention is among its ops
  int32_t position = kPosition;  // of the run under way
  RandomWeights weights;
  std::vector<std::pair<std::string, std::vector<float>>> inputs;
  std::vector<std::string> outputs;
  std::vector<uint64_t> kernels;
  std::unique_ptr<Plan> plan, same;  // the second for the reference
  std::unique_ptr<Program> program, other;
  std::unique_ptr<KvPages> kv, other_kv;
  std::vector<int32_t> ids;

  explicit Stretch(uint64_t seed) : weights(seed) {}
  void copy(const Plan& from, size_t begin, size_t end);
};

void SelfCheck::Stretch::copy(const Plan& from, size_t begin, size_t end) {
  n_tokens = from.n_tokens();
  plan = std::make_unique<Plan>(n_tokens);
  std::map<int32_t, Ref> made;  // by their number in the model's plan
  const auto& nodes = from.nodes();
  auto is_product = [&](size_t i) { return std::holds_alternative<MatMul>(nodes[i].op); };
  const bool ends_in_product = is_product(end - 1);
  auto value = [&](int32_t v) -> const Value& { return from.values()[size_t(v)]; };
  // What an earlier node made comes from outside, but for angles, which are made anew.
  std::function<Ref(int32_t)> ref = [&](int32_t v) -> Ref {
    if (v < 0) return {};
    if (const auto known = made.find(v); known != made.end()) return known->second;
    const Value& old = value(v);
    Ref& here = made[v];
    if (old.kind == ValueKind::kIds) return here = plan->ids();
    if (old.kind == ValueKind::kConstant) return here = plan->constant(old.constant);
    if (old.kind == ValueKind::kWeight) return here = plan->weight(weights.vector(old.weight, old.shape[0]));
    if (old.alias_of >= 0) return here = plan->columns(ref(old.alias_of), old.first_column, old.shape[-1]);
    for (const Node& node : nodes) {
      if (node.output != v || !std::holds_alternative<RopeTable>(node.op)) continue;
      return here = plan->add(node.op, {ref(node.inputs[0])}, old.shape);
    }
    inputs.emplace_back("x" + std::to_string(inputs.size()), weights.numbers(n_tokens * old.shape[-1]));
    return here = plan->input(inputs.back().first, old.shape[-1]);
  };
  for (size_t i = begin; i < end; ++i) {
    const Node& node = nodes[i];
    name += (name.empty() ? "" : ", ") + std::string(op_name(node.op));
    Op op = node.op;
    Shape shape = node.output >= 0 ? value(node.output).shape : Shape();
    Ref x = {}, w = {}, bias = {};
    if (auto* embed = std::get_if<Embed>(&op)) {
      const Value& table = value(node.inputs[0]);
      const int64_t n = std::min(table.shape[0], std::max<int64_t>(kFewRows, embed->by_position ? kPosition + n_tokens : 0));
      w = plan->weight(weights.matrix(table.weight, n, table.shape[1]));
      name += " " + std::string(dtype_name(table.dtype));
      made[node.output] = plan->add(op, {w, ref(node.inputs[1])}, shape);
      continue;
    }
    if (is_product(i)) {
      const Value& matrix = value(node.inputs[1]);
      const bool is_last = i + 1 == end || !ends_in_product, is_first = i == begin && !is_last;
      const int64_t n = is_last ? std::min(matrix.shape[0], end == nodes.size() ? kEndRows : kFewRows) : matrix.shape[0];
      const int64_t k = is_first ? std::min(matrix.shape[1], kFewColumns) : matrix.shape[1];
      name += " " + (matrix.weight.planes ? plane_format_name(matrix.weight.planes->sets[0].code) : dtype_name(matrix.dtype));
      if (k == matrix.shape[1]) {
        x = ref(node.inputs[0]);
      } else {
        inputs.emplace_back("x" + std::to_string(inputs.size()), weights.numbers(value(node.inputs[0]).shape[0] * k));
        x = plan->input(inputs.back().first, k);
      }
      w = plan->weight(weights.matrix(matrix.weight, n, k));
      if (node.inputs[2] >= 0) bias = plan->weight(weights.vector(value(node.inputs[2]).weight, n));
      shape[1] = n;
      made[node.output] = plan->add(op, {x, w, bias}, shape);
      continue;
    }
    if (std::holds_alternative<SoftCap>(op)) shape[1] = plan->shape(ref(node.inputs[0]))[1];  // of logits, of which there are few
    if (auto* write = std::get_if<CacheWrite>(&op)) {
      write->layer = 0;
      kv_width = int32_t(value(node.inputs[0]).shape[-1]);
    }
    if (auto* attention = std::get_if<Attention>(&op)) {
      attention->layer = 0;
      attends = n_tokens == 1;
      kv_width = attention->n_kv_heads * attention->head_dim;
    }
    const Ref in[] = {ref(node.inputs[0]), ref(node.inputs[1]), ref(node.inputs[2]), ref(node.inputs[3])};
    const Ref y = plan->add(op, {in[0], in[1], in[2], in[3]}, shape);
    if (node.output >= 0) made[node.output] = y;
  }
  // What the model reads of it later, and what it ends with.
  auto is_read_later = [&](int32_t v) {
    for (size_t i = end; i < nodes.size(); ++i) {
      for (int32_t in : nodes[i].inputs) {
        if (in >= 0 && from.root(in) == v) return true;
      }
    }
    return std::ranges::any_of(from.outputs(), [&](const Output& output) { return from.root(output.value) == v; });
  };
  for (size_t i = begin; i < end; ++i) {
    const int32_t y = nodes[i].output;
    if (y < 0 || std::holds_alternative<RopeTable>(nodes[i].op) || (!is_read_later(y) && i + 1 != end)) continue;
    has_logits = i + 1 == nodes.size() && n_tokens == 1;
    outputs.push_back(has_logits ? "logits" : "y" + std::to_string(outputs.size()));
    plan->output(outputs.back(), made[y]);
  }
  name += ", " + std::to_string(n_tokens) + (n_tokens == 1 ? " token" : " tokens");
  same = std::make_unique<Plan>(*plan);
  for (int64_t t = 0; t < n_tokens; ++t) ids.push_back(int32_t(t % 7));
}

SelfCheck::SelfCheck(Model& model, std::unique_ptr<Device> reference)
    : model_(model), reference_(std::move(reference)), began_ms_(host_now_ms()) {
  // One token first: it is what most of an answer is made of.
  const std::span<const int64_t> buckets = prefill_buckets();
  for (auto n = buckets.rbegin(); n != buckets.rend(); ++n) {
    passes_.push_back(std::make_unique<Plan>(*n));
    model.graph().build(*passes_.back(), {*n, Pass::Logits::kLast, false});
    if (!find(*passes_.back())) break;
  }
  std::ranges::reverse(waiting_);
}

SelfCheck::~SelfCheck() = default;

/// Notes the kernels of a pass and its stretches, but for those that are known; false when there are none.
bool SelfCheck::find(const Plan& plan) {
  const std::vector<uint64_t> kernels = model_.device().kernels(plan, true);
  if (kernels.empty()) return false;
  kernels_.insert(kernels.begin(), kernels.end());
  const auto& nodes = plan.nodes();
  size_t begin = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const bool is_product = std::holds_alternative<MatMul>(nodes[i].op), is_end = i + 1 == nodes.size();
    if (!is_product && !is_end) continue;
    std::string key = std::to_string(plan.n_tokens()) + ": ";
    for (size_t j = begin; j <= i; ++j) describe(plan, nodes[j], key);
    if (known_.insert(key).second) waiting_.push_back({&plan, begin, i + 1});
    begin = i;
  }
  return true;
}

std::string SelfCheck::key() const {
  if (kernels_.empty()) return "";
  const uint64_t h = hash_of(kernels_, hash_of(model_.device().describe()));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(h));
  return text;
}

std::string SelfCheck::json() const {
  const auto n = std::ranges::count_if(kernels_, [&](uint64_t kernel) { return checked_.contains(kernel); });
  return json_text(OrderedJson{{"kernels", kernels_.size()}, {"checked", n}, {"stretches", n_checked_}, {"worst", worst_}, {"ms", ms_}});
}

Status SelfCheck::start(Stretch& s) {
  const int32_t width = std::max(1, s.kv_width);
  const int64_t head_dim = s.kv_width > 0 ? model_.shape().head_dim : width;
  s.kv = std::make_unique<KvPages>(1, width, head_dim, true, 0, model_.device().kv_storage(1, width, true));
  s.other_kv = std::make_unique<KvPages>(1, width, head_dim, true);
  SB_TRY(s.other, reference_->compile(std::move(s.same)));
  SB_TRY(s.program, model_.device().compile(std::move(s.plan)));
  for (const auto& [name, numbers] : s.inputs) {
    SB_OK(reference_->fill(*s.other, name, numbers));
    SB_OK(model_.device().fill(*s.program, name, numbers));
  }
  return run(s, 0);
}

/// Runs it at its position on both devices, with random rows in the cache from `first` up to there.
Status SelfCheck::run(Stretch& s, int32_t first) {
  if (s.kv_width > 0) {
    Random random(s.ids.size() + uint64_t(s.kv_width + first));
    std::vector<uint16_t> row(size_t(s.kv_width));
    for (KvPages* kv : {s.kv.get(), s.other_kv.get()}) SB_OK(kv->reserve(s.position + s.n_tokens));
    for (int32_t t = first; t < s.position; ++t) {
      for (int part = 0; part < 2; ++part) {
        for (uint16_t& x : row) x = float_to_half(random.number(1));
        for (KvPages* kv : {s.kv.get(), s.other_kv.get()}) kv->write(t, 0, part, reinterpret_cast<const std::byte*>(row.data()));
      }
    }
  }
  SB_OK(model_.device().submit(*s.program, {s.ids, s.position, s.kv_width > 0 ? s.kv.get() : nullptr}));
  return reference_->submit(*s.other, {s.ids, s.position, s.kv_width > 0 ? s.other_kv.get() : nullptr});
}

/// Compares what has come.
Status SelfCheck::judge(Stretch& s) {
  auto wrong = [&](const std::string& what, double error) {
    const Json about = json_parse(model_.device().describe(), "device").value_or(Json::object());
    const Json* gpu = json_find(about, "gpu");
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", error);
    return err(Code::kDeviceWrong, {{"adapter", gpu ? json_string(*gpu, "adapter").value_or("") : std::string(model_.device().name())},
                                    {"op", what},
                                    {"error", text}});
  };
  for (const std::string& name : s.outputs) {
    const std::span<const float> got = s.program->output(name), want = s.other->output(name);
    double error = 0, power = 1e-30, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double off = double(got[i]) - want[i];
      error += off * off;
      power += double(want[i]) * want[i];
      if (!(std::abs(off) <= worst)) worst = std::abs(off);
    }
    const double nmse = error / power, worst_part = worst / std::sqrt(power / double(std::max<size_t>(1, want.size())));
    if (!(nmse <= kCheckNmse && worst_part <= kCheckWorst)) return wrong(s.name, nmse);
    worst_ = std::max(worst_, nmse);
  }
  checked_.insert(s.kernels.begin(), s.kernels.end());
  ++n_checked_;
  return {};
}

/// The next way to choose a token, from logits that are known.
Result<CheckStep> SelfCheck::choose() {
  Stretch& s = *running_;
  Sampler sampler(kChoices[s.n_choices++]);
  SB_OK(model_.device().submit(*s.program,
                               {s.ids, s.position, s.kv_width > 0 ? s.kv.get() : nullptr, int32_t(s.logits.size()), sampler.draw()}));
  return CheckStep::kMore;
}

Result<CheckStep> SelfCheck::step() {
  Device& device = model_.device();
  ms_ = host_now_ms() - began_ms_;
  if (running_ && running_->n_choices > 0) {
    SB_TRY(const std::optional<int32_t> id, device.chosen());
    if (!id) return device.wait() ? CheckStep::kMore : CheckStep::kWaits;
    Sampler sampler(kChoices[running_->n_choices - 1]);
    std::vector<float> logits = running_->logits;
    SB_TRY(const int32_t wanted, sampler.sample(logits, {}));
    if (*id != wanted) {
      const std::string error = std::to_string(*id) + " for " + std::to_string(wanted);
      return err(Code::kDeviceWrong, {{"adapter", device.name()}, {"op", "the choice of the next token"}, {"error", error}});
    }
    if (running_->n_choices == std::size(kChoices)) {
      running_.reset();
      return CheckStep::kMore;
    }
    return choose();
  }
  if (running_) {
    SB_TRY(const bool is_there, settle(device));
    if (!is_there) return CheckStep::kWaits;
    SB_OK(judge(*running_));
    if (running_->attends && running_->position < device.long_position()) {
      const int32_t first = std::exchange(running_->position, device.long_position());
      SB_OK(run(*running_, first));
      return CheckStep::kMore;
    }
    if (running_->has_logits && device.n_choices() > 0) {
      const std::span<const float> logits = running_->program->output("logits");
      running_->logits.assign(logits.begin(), logits.end());
      return choose();
    }
    running_.reset();
  }
  while (!waiting_.empty() && ms_ < kMostMs) {
    auto next = std::make_unique<Stretch>(++n_begun_);
    next->copy(*waiting_.back().pass, waiting_.back().begin, waiting_.back().end);
    waiting_.pop_back();
    next->kernels = device.kernels(*next->plan, true);
    if (std::ranges::all_of(next->kernels, [&](uint64_t kernel) { return checked_.contains(kernel); })) continue;
    running_ = std::move(next);
    SB_OK(start(*running_));
    return CheckStep::kMore;
  }
  waiting_.clear();
  passes_.clear();
  return CheckStep::kDone;
}

}  // namespace sb
