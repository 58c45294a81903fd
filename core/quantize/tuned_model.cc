#include "quantize/tuned_model.h"

#include <algorithm>
#include <cmath>

#include "formats/decode.h"

namespace sb {
namespace {

constexpr double kMeanDecay = 0.9, kSquareDecay = 0.95, kLeastRoot = 1e-12;

/// Row r of a matrix of one set, with scales of float32.
void decode_with(const PlaneMatrix& m, const std::vector<float>& row_scale, const std::vector<float>& column_scale, int64_t r, float* to,
                 std::vector<float>& row) {
  row.resize(size_t(m.n_columns));
  decode_plane_values(m, 0, r, row.data());
  for (size_t k = 0; k < row.size(); ++k) row[k] *= row_scale[size_t(r)] * column_scale[k];
  if (m.hadamard) {
    hadamard(row.data(), m.n_columns, m.hadamard);
    for (int64_t k = 0; k < m.n_columns; ++k) row[size_t(k)] *= plane_sign(m.signs, k);
  }
  std::copy(row.begin(), row.end(), to);
}

}  // namespace

void TunedNumbers::start(std::vector<float> from) {
  initial = std::move(from);
  for (float& v : initial) v += offset;
  if (kind == Kind::kBias) {
    double squares = 0;
    for (float v : initial) squares += double(v) * double(v);
    unit = std::max(1e-3f, float(std::sqrt(squares / double(initial.size()))));
  }
  for (std::vector<float>* v : {&change, &best, &gradient, &mean, &square}) v->assign(initial.size(), 0.0f);
  apply();
}

void TunedNumbers::update(double rate, int64_t step) {
  const double mean_weight = 1 - std::pow(kMeanDecay, double(step)), square_weight = 1 - std::pow(kSquareDecay, double(step));
  for (size_t i = 0; i < change.size(); ++i) {
    // A scale's gradient is by its logarithm already; a gain's and a bias's is by the number.
    const double by_change = kind == Kind::kScale ? 1 : kind == Kind::kBias ? double(unit) : double(value[i] + offset);
    const double g = double(gradient[i]) * by_change;
    mean[i] = float(kMeanDecay * double(mean[i]) + (1 - kMeanDecay) * g);
    square[i] = float(kSquareDecay * double(square[i]) + (1 - kSquareDecay) * g * g);
    change[i] -= float(rate * (double(mean[i]) / mean_weight) / (std::sqrt(double(square[i]) / square_weight) + kLeastRoot));
    gradient[i] = 0;
  }
  apply();
}

void TunedNumbers::apply() {
  value.resize(initial.size());
  for (size_t i = 0; i < value.size(); ++i) {
    if (kind == Kind::kBias) {
      value[i] = initial[i] + unit * change[i];
    } else {
      value[i] = initial[i] * std::exp(change[i]) - offset;
    }
    if (kind == Kind::kScale) value[i] = half_to_float(float_to_half(value[i]));
  }
}

Result<TunedModel> TunedModel::create(const ModelGraph& graph, const ModelPlan& plan, std::vector<std::shared_ptr<FinishedGroup>> groups,
                                      Substitutes substitutes) {
  TunedModel model;
  model.n_layers_ = graph.shape().n_layers;
  model.substitutes_ = std::move(substitutes);
  model.groups_ = std::move(groups);
  model.find_matrices(plan);
  SB_OK(model.find_vectors(graph, plan));
  return model;
}

void TunedModel::find_matrices(const ModelPlan& plan) {
  for (const GroupPlan& group : plan.groups) {
    TunedMatrix& matrix = matrices_.emplace_back();
    matrix.plan = &group;
    // Embedding and head stay: most of their rows are hardly seen in so little text.
    if (group.is_embedding || group.is_head) continue;
    for (const auto& made : groups_) {
      if (made->name == group.name && !made->base.words.empty()) matrix.group = made.get();
    }
    if (!matrix.group) continue;
    SB_ASSERT(matrix.group->matrix.n_sets == 1);
    int64_t first_row = 0;
    for (size_t i = 0; i < group.tensors.size(); ++i) {
      rows_of_[group.tensors[i]] = {&matrix, first_row};
      first_row += group.n_rows[i];
    }
    for (auto [numbers, halves] :
         {std::pair(&matrix.row_scale, &matrix.group->base.row_scale), std::pair(&matrix.column_scale, &matrix.group->base.column_scale)}) {
      std::vector<float> from;
      for (uint16_t h : *halves) from.push_back(half_to_float(h));
      numbers->start(std::move(from));
    }
  }
}

/// What each kept vector is, read off the plans that use it.
Status TunedModel::find_vectors(const ModelGraph& graph, const ModelPlan& kept) {
  for (int64_t layer = 0; layer <= n_layers_; ++layer) {
    Plan plan(1);
    graph.build(plan,
                layer < n_layers_ ? Pass{1, Pass::Logits::kNone, false, layer, layer + 1} : Pass{1, Pass::Logits::kAll, false, layer, -1});
    SB_OK(plan.finish());
    auto tune = [&](int32_t index, TunedNumbers::Kind kind, float offset = 0) {
      if (index < 0 || plan.values()[size_t(index)].kind != ValueKind::kWeight) return;
      const Value& v = plan.values()[size_t(index)];
      const bool is_kept = std::any_of(kept.kept.begin(), kept.kept.end(), [&](const KeptTensor& k) { return k.name == v.name; });
      if (!is_kept || v.shape.rank() != 1 || vectors_.contains(v.name)) return;
      std::vector<float> from(size_t(v.shape[0]));
      decode_row(v.weight, 0, from.data(), v.shape[0]);
      TunedNumbers& numbers = vectors_[v.name];
      numbers.kind = kind;
      numbers.offset = offset;
      numbers.start(std::move(from));
    };
    for (const Node& node : plan.nodes()) {
      if (const RmsNorm* op = std::get_if<RmsNorm>(&node.op)) tune(node.inputs[1], TunedNumbers::Kind::kGain, op->offset);
      if (std::holds_alternative<LayerNorm>(node.op)) {
        tune(node.inputs[1], TunedNumbers::Kind::kGain);
        tune(node.inputs[2], TunedNumbers::Kind::kBias);
      }
      if (std::holds_alternative<MatMul>(node.op)) tune(node.inputs[2], TunedNumbers::Kind::kBias);
    }
  }
  return {};
}

std::pair<TunedMatrix*, int64_t> TunedModel::matrix_of(std::string_view tensor) {
  const auto found = rows_of_.find(tensor);
  return found == rows_of_.end() ? std::pair<TunedMatrix*, int64_t>() : found->second;
}

TunedNumbers* TunedModel::vector(std::string_view name) {
  const auto found = vectors_.find(name);
  return found == vectors_.end() ? nullptr : &found->second;
}

double TunedModel::mean_planes() const {
  double planes = 0, weights = 0;
  for (const TunedMatrix& m : matrices_) {
    if (!m.group) continue;
    planes += double(m.group->base.code.n_planes) * double(m.plan->n_weights());
    weights += double(m.plan->n_weights());
  }
  return planes / std::max(1.0, weights);
}

Substitutes TunedModel::floats_of(int64_t layer, ThreadPool& pool) {
  Substitutes out = substitutes_;
  for (const auto& [name, numbers] : vectors_) out[name] = vector_view(numbers.value);
  auto is_here = [&](const TunedMatrix& m) { return layer < n_layers_ ? m.plan->layer == layer : m.plan->is_head; };
  int64_t n_floats = 0;
  for (const TunedMatrix& m : matrices_) n_floats += is_here(m) ? m.plan->n_weights() : 0;
  floats_.resize(size_t(n_floats));
  float* to = floats_.data();
  for (const TunedMatrix& m : matrices_) {
    if (!is_here(m)) continue;
    const int64_t k = m.plan->n_columns;
    int64_t first_row = 0;
    for (size_t i = 0; i < m.plan->tensors.size(); ++i) {
      const auto found = substitutes_.find(m.plan->tensors[i]);
      const TensorView& stored = found != substitutes_.end() ? found->second : m.plan->views[i];
      const int64_t n = m.plan->n_rows[i];
      pool.run([&](int thread) {
        std::vector<float> row;
        for (int64_t r = thread; r < n; r += pool.size()) {
          if (m.group) {
            decode_with(m.group->matrix, m.row_scale.value, m.column_scale.value, first_row + r, to + r * k, row);
          } else {
            decode_row(stored, r, to + r * k, k);
          }
        }
      });
      out[m.plan->tensors[i]] = {reinterpret_cast<const std::byte*>(to), Dtype::kF32, {n, k}, k * 4, nullptr, 0};
      to += n * k;
      first_row += n;
    }
  }
  return out;
}

void TunedModel::store() {
  for (TunedMatrix& m : matrices_) {
    if (!m.group) continue;
    // In place: what runs on these arrays keeps seeing them.
    for (size_t i = 0; i < m.row_scale.value.size(); ++i) m.group->base.row_scale[i] = float_to_half(m.row_scale.value[i]);
    for (size_t i = 0; i < m.column_scale.value.size(); ++i) m.group->base.column_scale[i] = float_to_half(m.column_scale.value[i]);
  }
}

}  // namespace sb
