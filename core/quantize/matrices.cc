#include "quantize/matrices.h"

#include <algorithm>
#include <set>

namespace sb {
namespace {

/// "a.b.q_proj.weight", "a.b.k_proj.weight" → "a.b.q_proj_k_proj.weight".
std::string joined_name(const std::vector<std::string>& names) {
  if (names.size() == 1) return names[0];
  auto stem = [](const std::string& name) { return name.substr(0, name.rfind('.')); };
  const std::string parent = stem(stem(names[0])), last = names[0].substr(names[0].rfind('.'));
  std::string out = parent;
  for (size_t i = 0; i < names.size(); ++i) out += (i ? "_" : ".") + stem(names[i]).substr(stem(stem(names[i])).size() + 1);
  return out + last;
}

Result<std::unique_ptr<Plan>> stretch_plan(const ModelGraph& graph, const Pass& pass) {
  auto plan = std::make_unique<Plan>(pass.n_tokens);
  graph.build(*plan, pass);
  SB_OK(plan->finish());
  return plan;
}

}  // namespace

int64_t GroupPlan::rows() const {
  int64_t n = 0;
  for (int64_t r : n_rows) n += r;
  return n;
}

std::string component_of(int64_t layer, int64_t n_layers) {
  return layer < 0 ? "embeddings" : layer == n_layers ? "lm_head" : "layer_" + std::to_string(layer);
}

Result<ModelPlan> plan_matrices(const ModelGraph& graph) {
  ModelPlan out;
  out.n_layers = graph.shape().n_layers;
  std::set<std::string> known;
  for (int64_t layer = -1; layer <= out.n_layers; ++layer) {
    const Pass pass = layer < 0               ? Pass{1, Pass::Logits::kNone, false, 0, 0}
                      : layer == out.n_layers ? Pass{1, Pass::Logits::kAll, false, layer, -1}
                                              : Pass{1, Pass::Logits::kNone, false, layer, layer + 1};
    if (layer == 0 && out.n_layers == 0) break;
    SB_TRY(const std::unique_ptr<Plan> plan, stretch_plan(graph, pass));
    // A first layer's stretch embeds too: what is known already is skipped.
    for (const Node& node : plan->nodes()) {
      const Embed* embed = std::get_if<Embed>(&node.op);
      if (!embed || embed->by_position) continue;
      const Value& w = plan->values()[size_t(node.inputs[0])];
      if (!known.insert(w.name).second) continue;
      out.groups.push_back({w.name, {w.name}, {w.weight}, {w.shape[0]}, w.shape[1], -1, true, false});
    }
    for (const LinearGroup& g : linear_groups(*plan)) {
      GroupPlan group;
      for (int32_t index : g.weights) {
        const Value& w = plan->values()[size_t(index)];
        if (!known.insert(w.name).second) {
          // The head that is the embedding.
          for (GroupPlan& other : out.groups) other.is_head = other.is_head || (layer == out.n_layers && other.name == w.name);
          continue;
        }
        group.tensors.push_back(w.name);
        group.views.push_back(w.weight);
        group.n_rows.push_back(w.shape[0]);
      }
      if (group.tensors.empty()) continue;
      group.name = joined_name(group.tensors);
      group.n_columns = g.n_columns;
      group.layer = layer;
      group.is_head = layer == out.n_layers;
      out.groups.push_back(std::move(group));
    }
    for (const Value& v : plan->values()) {
      if (v.kind == ValueKind::kWeight && known.insert(v.name).second) out.kept.push_back({v.name, v.weight, layer});
    }
  }
  return out;
}

}  // namespace sb
