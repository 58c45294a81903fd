#include "device/plan.h"

#include <algorithm>

namespace sb {
namespace {

int32_t root_of(const std::vector<Value>& values, int32_t index) {
  while (values[size_t(index)].alias_of >= 0) index = values[size_t(index)].alias_of;
  return index;
}

}  // namespace

Ref Plan::weight(const TensorView& view, std::string name) {
  if (failed()) return {};
  Value v;
  v.kind = ValueKind::kWeight;
  v.dtype = view.dtype;
  v.shape = view.shape;
  v.weight = view;
  v.name = std::move(name);
  values_.push_back(std::move(v));
  return {int32_t(values_.size() - 1)};
}

Ref Plan::constant(std::vector<float> data) {
  if (failed()) return {};
  Value v;
  v.kind = ValueKind::kConstant;
  v.shape = {int64_t(data.size())};
  v.constant = std::move(data);
  values_.push_back(std::move(v));
  return {int32_t(values_.size() - 1)};
}

Ref Plan::ids() {
  if (failed()) return {};
  if (ids_ < 0) {
    Value v;
    v.kind = ValueKind::kIds;
    v.dtype = Dtype::kI32;
    v.shape = {n_tokens_};
    values_.push_back(std::move(v));
    ids_ = int32_t(values_.size() - 1);
  }
  return {ids_};
}

Ref Plan::input(std::string name, int64_t width) {
  if (failed()) return {};
  Value v;
  v.shape = {n_tokens_, width};
  v.is_input = true;
  values_.push_back(std::move(v));
  const Ref ref{int32_t(values_.size() - 1)};
  output(std::move(name), ref);
  return ref;
}

void Plan::make_exact() {
  for (Node& node : nodes_) {
    if (MatMul* op = std::get_if<MatMul>(&node.op)) op->exact = true;
  }
}

void Plan::replace_weight(int32_t index, const TensorView& view) {
  Value& v = values_[size_t(index)];
  SB_ASSERT(v.kind == ValueKind::kWeight && v.shape == view.shape);
  v.weight = view;
  v.dtype = view.dtype;
}

Ref Plan::columns(Ref x, int64_t first, int64_t n) {
  if (failed()) return {};
  const Value& whole = value(x);
  SB_ASSERT(whole.kind == ValueKind::kActivation && whole.shape.rank() == 2);
  SB_ASSERT(first >= 0 && n > 0 && first + n <= whole.shape[1]);
  Value v;
  v.shape = {whole.shape[0], n};
  v.alias_of = x.index;
  v.first_column = first;
  values_.push_back(std::move(v));
  return {int32_t(values_.size() - 1)};
}

Ref Plan::add(Op op, std::initializer_list<Ref> inputs, Shape shape) {
  if (failed()) return {};
  Node node;
  node.op = op;
  size_t n = 0;
  for (Ref in : inputs) node.inputs[n++] = in.index;
  if (shape.rank() > 0) {
    Value v;
    v.shape = shape;
    values_.push_back(std::move(v));
    node.output = int32_t(values_.size() - 1);
  }
  nodes_.push_back(node);
  return {node.output};
}

int32_t Plan::root(int32_t value) const { return root_of(values_, value); }

void Plan::cut(size_t begin, size_t end, const std::vector<int32_t>& given) {
  nodes_.erase(nodes_.begin() + int64_t(end), nodes_.end());
  nodes_.erase(nodes_.begin(), nodes_.begin() + int64_t(begin));
  std::vector<bool> is_there(values_.size(), false);
  for (const Node& node : nodes_) {
    if (node.output >= 0) is_there[size_t(node.output)] = true;
  }
  // An input that is given under its old name as well would be filled twice.
  for (Value& v : values_) v.is_input = false;
  for (size_t i = 0; i < given.size(); ++i) {
    values_[size_t(given[i])].is_input = is_there[size_t(given[i])] = true;
    outputs_.push_back({"given." + std::to_string(i), given[i]});
  }
  std::erase_if(outputs_, [&](const Output& output) { return !is_there[size_t(root(output.value))]; });
}

void Plan::output(std::string name, Ref ref) {
  if (failed()) return;
  outputs_.push_back({std::move(name), ref.index});
}

Ref Plan::fail(Error error) {
  if (!error_) error_ = std::move(error);
  return {};
}

Status Plan::finish() const {
  if (error_) return std::unexpected(*error_);
  return {};
}

Status check_weights(const Plan& plan, std::string_view device) {
  for (const Node& node : plan.nodes()) {
    const bool takes_planes = std::holds_alternative<MatMul>(node.op) || std::holds_alternative<Embed>(node.op);
    for (int32_t in : node.inputs) {
      if (in < 0 || plan.values()[size_t(in)].kind != ValueKind::kWeight) continue;
      const Dtype dtype = plan.values()[size_t(in)].dtype;
      if (dtype == Dtype::kI32 || dtype == Dtype::kU8 || (dtype == Dtype::kPlanes && !takes_planes))
        return err(Code::kOpUnsupported, {{"device", device}, {"op", op_name(node.op)}, {"dtype", dtype_name(dtype)}});
    }
  }
  return {};
}

ArenaLayout plan_arena(const Plan& plan, const NodeTimes* times) {
  const std::vector<Value>& values = plan.values();
  const size_t n_nodes = plan.nodes().size();
  std::vector<int32_t> first(values.size(), -1), last(values.size(), -1);  // steps between which a value's bytes are needed
  for (size_t i = 0; i < n_nodes; ++i) {
    const Node& node = plan.nodes()[i];
    const int32_t begin = times ? times->begin[i] : int32_t(i), end = times ? times->end[i] : int32_t(i);
    if (node.output >= 0) {
      first[size_t(node.output)] = begin;
      last[size_t(node.output)] = end;
    }
    for (int32_t in : node.inputs) {
      if (in >= 0) last[size_t(root_of(values, in))] = end;
    }
  }
  for (const Output& output : plan.outputs()) last[size_t(root_of(values, output.value))] = INT32_MAX;

  // Values in order of birth; each takes the lowest gap left by those alive at the same time.
  struct Placed {
    int64_t begin, end;
    int32_t last;
  };
  ArenaLayout layout;
  layout.offset.assign(values.size(), -1);
  std::vector<Placed> placed;  // sorted by begin
  auto place = [&](size_t v) {
    std::erase_if(placed, [&](const Placed& p) { return p.last < first[v]; });
    const int64_t n_bytes = (values[v].shape.elements() * 4 + 63) / 64 * 64;
    int64_t at = 0;
    for (const Placed& p : placed) {
      if (p.begin - at >= n_bytes) break;
      at = std::max(at, p.end);
    }
    layout.offset[v] = at;
    layout.n_bytes = std::max(layout.n_bytes, at + n_bytes);
    Placed mine{at, at + n_bytes, last[v]};
    placed.insert(std::upper_bound(placed.begin(), placed.end(), mine, [](const Placed& a, const Placed& b) { return a.begin < b.begin; }),
                  mine);
  };
  for (size_t v = 0; v < values.size(); ++v) {
    if (!values[v].is_input) continue;
    first[v] = 0;
    place(v);
  }
  for (const Node& node : plan.nodes()) {
    if (node.output >= 0) place(size_t(node.output));
  }
  return layout;
}

}  // namespace sb
