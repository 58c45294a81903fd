// Which matrices a model has, which of them share an input and are therefore stored as one, and in which order they load: read off the
// plans that its family writes.
#pragma once

#include <string>
#include <vector>

#include "quantize/forward.h"

namespace sb {

/// Matrices stored as one. `tensors` have their Hugging Face names.
struct GroupPlan {
  std::string name;  // "model.layers.0.self_attn.q_proj_k_proj_v_proj.weight"
  std::vector<std::string> tensors;
  std::vector<TensorView> views;
  std::vector<int64_t> n_rows;  // of each
  int64_t n_columns = 0;
  int64_t layer = -1;  // −1: embedding, n_layers: head
  bool is_embedding = false, is_head = false;

  int64_t rows() const;
  int64_t n_weights() const { return rows() * n_columns; }
};

/// A tensor that stays as it is: norms, biases, position embeddings.
struct KeptTensor {
  std::string name;
  TensorView view;
  int64_t layer = -1;
};

struct ModelPlan {
  int64_t n_layers = 0;
  std::vector<GroupPlan> groups;  // embedding, layers, head
  std::vector<KeptTensor> kept;
};

/// Errors: those of the family's build.
Result<ModelPlan> plan_matrices(const ModelGraph& graph);

/// Part of a loaded model that a group is: 0 … n_layers + 1 for embeddings, layers, head; as a component of the folder.
std::string component_of(int64_t layer, int64_t n_layers);

}  // namespace sb
