#include "quantize/forward.h"

#include <algorithm>

namespace sb {

std::vector<LinearGroup> linear_groups(const Plan& plan) {
  std::vector<LinearGroup> groups;
  for (const Node& node : plan.nodes()) {
    if (!std::holds_alternative<MatMul>(node.op)) continue;
    const Value& w = plan.values()[size_t(node.inputs[1])];
    auto found = std::find_if(groups.begin(), groups.end(), [&](const LinearGroup& g) { return g.input == node.inputs[0]; });
    if (found == groups.end()) found = groups.insert(groups.end(), LinearGroup{node.inputs[0], {}, {}, 0, w.shape[1]});
    found->weights.push_back(node.inputs[1]);
    found->names.push_back(w.name);
    found->n_rows += w.shape[0];
    for (const Node& add : plan.nodes()) {
      if (!std::holds_alternative<Add>(add.op) || found->weights.size() > 1) continue;
      if (add.inputs[1] == node.output) found->residual = add.inputs[0];
      if (add.inputs[0] == node.output) found->residual = add.inputs[1];
    }
    if (found->weights.size() > 1) found->residual = -1;
  }
  return groups;
}

namespace {

/// Activations that are made before node `at` and needed from there on.
std::vector<int32_t> live_at(const Plan& plan, size_t at) {
  std::vector<bool> is_made(plan.values().size()), is_needed(plan.values().size());
  for (size_t i = 0; i < plan.values().size(); ++i) is_made[i] = plan.values()[i].is_input;
  for (size_t i = 0; i < plan.nodes().size(); ++i) {
    const Node& node = plan.nodes()[i];
    if (i < at) {
      if (node.output >= 0) is_made[size_t(node.output)] = true;
      continue;
    }
    for (int32_t in : node.inputs) {
      if (in >= 0) is_needed[size_t(plan.root(in))] = true;
    }
  }
  for (const Output& output : plan.outputs()) {
    if (!plan.values()[size_t(plan.root(output.value))].is_input) is_needed[size_t(plan.root(output.value))] = true;
  }
  std::vector<int32_t> live;
  for (size_t i = 0; i < is_made.size(); ++i) {
    if (is_made[i] && is_needed[i]) live.push_back(int32_t(i));
  }
  return live;
}

struct Cut {
  size_t at = 0;   // node
  size_t end = 0;  // of the stage before it: the node that needs the group's input
  std::vector<int32_t> live;
};

/// Where stage g ends. The cut lies behind all matmuls before the group's, not between a write into the cache and its reader.
Cut cut_before(const Plan& plan, const LinearGroup& group) {
  const std::vector<Node>& nodes = plan.nodes();
  Cut best;
  size_t first = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (!std::holds_alternative<MatMul>(nodes[i].op)) continue;
    if (nodes[i].inputs[0] == group.input) {
      best.end = i;
      break;
    }
    first = i + 1;
  }
  int64_t least = -1;
  for (size_t at = first; at <= best.end; ++at) {
    const bool divides_cache = [&] {
      const auto begin = nodes.begin(), cut = begin + int64_t(at);
      return std::any_of(begin, cut, [](const Node& n) { return std::holds_alternative<CacheWrite>(n.op); }) &&
             std::any_of(cut, nodes.end(), [](const Node& n) { return std::holds_alternative<Attention>(n.op); });
    }();
    if (divides_cache) continue;
    std::vector<int32_t> live = live_at(plan, at);
    int64_t n = 0;
    for (int32_t value : live) n += plan.values()[size_t(value)].shape.elements();
    if (least >= 0 && n > least) continue;
    least = n;
    best.at = at;
    best.live = std::move(live);
  }
  SB_ASSERT(least >= 0);
  return best;
}

}  // namespace

Result<Stretch> Stretch::compile(const ModelGraph& graph, Device& device, const Pass& pass, const Substitutes& substitutes, Watch watch) {
  Stretch s;
  s.device_ = &device;
  s.n_tokens_ = pass.n_tokens;
  auto plan = std::make_unique<Plan>(pass.n_tokens);
  graph.build(*plan, pass);
  plan->make_exact();  // a reference, and what is measured against it
  SB_OK(plan->finish());
  for (size_t i = 0; i < plan->values().size(); ++i) {
    const Value& v = plan->values()[i];
    if (v.kind != ValueKind::kWeight) continue;
    if (auto found = substitutes.find(v.name); found != substitutes.end()) plan->replace_weight(int32_t(i), found->second);
  }
  if (watch.stage >= 0) {
    const std::vector<LinearGroup> groups = linear_groups(*plan);
    const size_t stage = size_t(watch.stage);
    SB_ASSERT(stage <= groups.size());
    const Cut begin = stage ? cut_before(*plan, groups[stage - 1]) : Cut{0, 0, live_at(*plan, 0)};
    Cut end{plan->nodes().size(), plan->nodes().size(), {}};
    if (stage < groups.size()) {
      end = cut_before(*plan, groups[stage]);
      plan->output("group." + std::to_string(stage), {groups[stage].input});
      if (groups[stage].residual >= 0) plan->output("residual." + std::to_string(stage), {groups[stage].residual});
    } else {
      end.live.push_back(plan->root(plan->outputs().back().value));  // y or logits
    }
    auto width = [&](int32_t value) { return plan->values()[size_t(value)].shape[-1]; };
    for (int32_t value : begin.live) s.given_.push_back(width(value));
    for (size_t i = 0; i < end.live.size(); ++i) {
      s.kept_.push_back(width(end.live[i]));
      plan->output("kept." + std::to_string(i), {end.live[i]});
    }
    plan->cut(begin.at, end.end, begin.live);
  }
  if (watch.record) {
    for (size_t i = 0; i < plan->values().size(); ++i) {
      const Value& v = plan->values()[i];
      if (v.kind == ValueKind::kActivation && v.alias_of < 0) plan->output("value." + std::to_string(i), {int32_t(i)});
    }
    *watch.record = std::make_unique<Plan>(*plan);
  }
  const DecoderShape shape = graph.shape();
  const int64_t end = pass.end_layer < 0 ? shape.n_layers : pass.end_layer;
  s.kv_ = std::make_unique<KvPages>(int32_t(std::max<int64_t>(1, end - pass.first_layer)), int32_t(shape.n_kv_heads * shape.head_dim),
                                    shape.head_dim, false, int32_t(pass.first_layer));
  if (end > pass.first_layer) SB_OK(s.kv_->reserve(pass.n_tokens));
  s.takes_x_ = pass.first_layer > 0;
  s.no_ids_.assign(size_t(pass.n_tokens), 0);
  SB_TRY(s.program_, device.compile(std::move(plan)));
  return s;
}

Status Stretch::run(std::span<const float> x, std::span<const int32_t> ids) {
  const std::span<const int32_t> used = ids.empty() ? std::span<const int32_t>(no_ids_) : ids;
  if (takes_x_) SB_OK(device_->fill(*program_, "x", x));
  return device_->submit(*program_, {used, 0, kv_.get()});
}

Status Stretch::run_stage(std::span<const int32_t> ids, const Give& give, const Keep& keep) {
  for (size_t i = 0; i < given_.size(); ++i) {
    room_.resize(size_t(n_tokens_ * given_[i]));
    give(i, room_);
    SB_OK(device_->fill(*program_, "given." + std::to_string(i), room_));
  }
  SB_OK(device_->submit(*program_, {ids, 0, kv_.get()}));
  for (size_t i = 0; i < kept_.size(); ++i) keep(i, program_->output("kept." + std::to_string(i)));
  return {};
}

std::vector<std::vector<int32_t>> windows_of(std::span<const int32_t> ids, int64_t n_tokens, std::span<const int32_t> prefix) {
  std::vector<std::vector<int32_t>> windows;
  const size_t fresh = size_t(n_tokens) - prefix.size();
  // The prefix takes the place of the text's first tokens, as in llama.cpp's perplexity: the windows of both hold the same.
  for (size_t at = 0; at + fresh <= ids.size(); at += size_t(n_tokens)) {
    std::vector<int32_t> window(prefix.begin(), prefix.end());
    window.insert(window.end(), ids.begin() + int64_t(at), ids.begin() + int64_t(at + fresh));
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace sb
