// Writing a quantised folder: where each tensor will lie, known before any of its bytes exist, so that they can be streamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"
#include "io/folder_index.h"
#include "tensor/tensor.h"

namespace sb {

struct FolderTensor {
  std::string name;
  const char* type = "F32";  // as safetensors spells it: U32, F32, I32, F16, BF16, U8
  Shape shape;
  std::string component;  // "layer_0"; of a refinement's tensor, the one that it refines
  bool is_refinement = false;
};

/// Errors: kArgumentInvalid when a folder cannot hold the type or the shape.
Result<uint64_t> stored_bytes(const FolderTensor& tensor);

class FolderLayout {
 public:
  struct Shard {
    std::string name;
    std::string head;  // the file's first bytes
    bool is_refinement = false;
    uint64_t n_bytes = 0;  // of the whole file
  };
  struct Place {
    size_t shard = 0;
    uint64_t offset = 0, n_bytes = 0;  // in that shard's file
    size_t component = 0;              // of index().components
  };

  /// `tensors` in load order; base and refinement may alternate, since each set has shards of its own. A component stays in one shard and
  /// becomes parts ("layer_0.1", "layer_0.2", …) only when it alone would not fit one: at tensor borders, so a tensor that does not fit has
  /// a larger shard to itself (io/split_tensors.h). The refinement of "layer_0" is the component "layer_0.refine" and needs all of
  /// "layer_0". A tensor begins at a multiple of its element's bytes when the sizes before it allow: the format has no gaps. Errors:
  /// kArgumentInvalid (a name twice, a component in two runs, a refinement of nothing, a shape out of bounds).
  static Result<FolderLayout> plan(std::vector<FolderTensor> tensors, uint64_t most_shard_bytes = 50'000'000);

  const std::vector<FolderTensor>& tensors() const { return tensors_; }
  const std::vector<Shard>& shards() const { return shards_; }
  const Place& place(size_t tensor) const { return places_[tensor]; }
  /// Shards with their heads' sums, and components, their own sums empty (FolderSums); no matrices and no order of giving back.
  const FolderIndex& index() const { return index_; }

 private:
  friend class FolderSums;
  std::vector<FolderTensor> tensors_;
  std::vector<Place> places_;  // one a tensor
  std::vector<Shard> shards_;
  FolderIndex index_;
};

/// Sums the components while a folder is written: within a component its tensors' bytes come in order, in pieces of any size; components
/// may alternate.
class FolderSums {
 public:
  /// `layout` outlives this.
  explicit FolderSums(const FolderLayout& layout);
  /// The next bytes of tensor number `tensor`.
  void add(size_t tensor, std::span<const std::byte> bytes);
  bool is_complete() const;
  /// What was summed so far, as bytes that only this program reads; and back. False when they are not of this layout.
  std::vector<std::byte> state() const;
  bool restore(std::span<const std::byte> state);
  /// The layout's index with every component's sum. To be asked when complete.
  FolderIndex index() const;

 private:
  struct Running {
    Sha256 sum;
    uint64_t offset = 0;  // in the shard, of the next byte
  };
  const FolderLayout& layout_;
  std::vector<uint64_t> n_done_;  // bytes, one a tensor
  std::vector<Running> running_;  // one a component
};

}  // namespace sb
