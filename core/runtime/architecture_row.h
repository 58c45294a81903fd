// Rows of data/architectures.json; architecture_tables.h (generated) holds them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace sb {

enum class TensorRole : uint8_t {
  kLinear,     // a matrix that is multiplied
  kEmbedding,  // looked up, or the head, or both
  kKept,       // stays as it is: norms, biases, positions, convolutions
};

/// Tensors of one input, stored as one where the format has it so ([q;k;v], [gate;up]).
struct ArchitectureTensor {
  TensorRole role;
  const char* names;            // comma-separated; '#' stands for the layer's number
  std::array<int64_t, 8> rows;  // N of each name
  int64_t columns;              // K; 0: vectors. A convolution's is its channels × width
  int64_t times;                // layers that have them
};

/// Layers of one kind, of a model for which there is no family here: what their activations are worked out from.
struct ArchitectureStack {
  int64_t layers, hidden, heads, kv_heads, head_dim, ffn;
  int64_t tokens;        // that run at once: 0: the context
  int64_t cross_tokens;  // outputs of an encoder that every layer attends to as well; 0: none
  int64_t vocab;         // of the logits behind it; 0: none
  bool is_gated;         // MLP
  bool is_decoder;       // has a cache, and runs as a session does
};

struct Architecture {
  const char *name, *title;
  int64_t n_parameters;  // as published
  int64_t context;       // tokens at most
  const char* config;    // config.json of a family that is here, or ""
  std::span<const ArchitectureTensor> tensors;
  std::span<const ArchitectureStack> stacks;
};

}  // namespace sb
