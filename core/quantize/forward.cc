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

Result<Stretch> Stretch::compile(const ModelGraph& graph, Device& device, const Pass& pass, const Substitutes& substitutes, Watch watch) {
  Stretch s;
  s.device_ = &device;
  auto plan = std::make_unique<Plan>(pass.n_tokens);
  graph.build(*plan, pass);
  SB_OK(plan->finish());
  for (size_t i = 0; i < plan->values().size(); ++i) {
    const Value& v = plan->values()[i];
    if (v.kind != ValueKind::kWeight) continue;
    if (auto found = substitutes.find(v.name); found != substitutes.end()) plan->replace_weight(int32_t(i), found->second);
  }
  s.groups_ = linear_groups(*plan);
  for (size_t i = 0; i < s.groups_.size(); ++i) {
    if (!watch.all && int64_t(i) != watch.until) continue;
    plan->output("group." + std::to_string(i), {s.groups_[i].input});
    if (s.groups_[i].residual >= 0) plan->output("residual." + std::to_string(i), {s.groups_[i].residual});
  }
  if (watch.until >= 0) plan->end_at(s.groups_[size_t(watch.until)].input);
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
                                    false, int32_t(pass.first_layer));
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
