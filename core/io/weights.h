// The tensors of a model by name, and a scope that walks the names: w["model.layers"][3]["self_attn.q_proj"].
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "device/device_rows.h"
#include "formats/planes.h"
#include "tensor/tensor.h"

namespace sb {

struct WeightTensor {
  std::string name;  // as the file has it
  std::string file;  // the file it came from
  Dtype dtype = Dtype::kF32;
  Shape shape;                          // outermost first, [N, K]
  Block block;                          // dense rows; empty for kPlanes
  const PlaneMatrix* planes = nullptr;  // kPlanes: the matrix of which this tensor is rows first_row … first_row + N − 1
  int64_t first_row = 0;
  std::string array_of = "";                    // an array of a stored matrix (its planes, scales …), not a tensor of the model
  std::unique_ptr<DeviceRows> there = nullptr;  // the rows, where a device keeps them; `block` is empty then

  TensorView view() const {
    return {block.data(), dtype,     shape,      shape.rank() ? dtype_bytes(dtype, shape[-1]) : int64_t(block.size()),
            planes,       first_row, there.get()};
  }
  /// Of its own, wherever they lie.
  uint64_t n_bytes() const { return there ? there->n_bytes() : block.size(); }
};

enum class Container : uint8_t { kGguf, kFolder };

/// Owns every tensor of a model.
class WeightStore {
 public:
  WeightStore(std::string file, Container container) : file_(std::move(file)), container_(container) {}

  /// Errors: kModelCorrupt when the name is there already.
  Status add(WeightTensor tensor);
  const WeightTensor* find(std::string_view name) const;
  WeightTensor* find(std::string_view name);
  const std::vector<std::unique_ptr<WeightTensor>>& tensors() const { return tensors_; }
  const std::string& file() const { return file_; }
  Container container() const { return container_; }
  /// Bytes of all tensors, wherever they lie.
  uint64_t n_bytes() const;
  /// Takes out the tensors that `is_chosen` names and frees their bytes; returns how many bytes those were.
  uint64_t remove(const std::function<bool(const WeightTensor&)>& is_chosen);
  /// Errors: kModelCorrupt when the new name is there already.
  Status rename(std::string_view from, std::string to);

  /// Keeps a matrix for the tensors that are rows of it; it does not move. Nothing when the name is there already.
  PlaneMatrix* add_matrix(std::string_view name, const PlaneMatrix& matrix);
  PlaneMatrix* find_matrix(std::string_view name);
  using Matrices = std::map<std::string, std::unique_ptr<PlaneMatrix>, std::less<>>;
  const Matrices& matrices() const { return matrices_; }

  /// Whether the family has made its changes (WeightRework).
  bool is_reworked() const { return is_reworked_; }
  void mark_reworked() { is_reworked_ = true; }

 private:
  std::string file_;
  Container container_;
  std::vector<std::unique_ptr<WeightTensor>> tensors_;  // in file order
  std::map<std::string, size_t, std::less<>> index_;
  Matrices matrices_;
  bool is_reworked_ = false;
};

/// A family's translation of a Hugging Face tensor name to the name in its file; "" when the file has no such tensor.
using NameMap = std::string (*)(std::string_view hugging_face_name);

/// A place in the tree of names. Cheap to copy. A model file speaks Hugging Face names; `map` turns them into the container's.
class Weights {
 public:
  Weights(const WeightStore& store, NameMap map) : store_(&store), map_(map) {}

  Weights operator[](std::string_view name) const;
  Weights operator[](int64_t index) const { return (*this)[std::to_string(index)]; }
  /// The tensor at `path().name`, or nullptr.
  const WeightTensor* tensor(std::string_view name) const;
  /// The Hugging Face name of `name` here.
  std::string path(std::string_view name) const;
  bool has(std::string_view name) const { return tensor(name) != nullptr; }
  /// The full name, both as Hugging Face has it and, where it differs, as the file does: for errors.
  std::string full_name(std::string_view name) const;
  const WeightStore& store() const { return *store_; }

 private:
  const WeightStore* store_;
  NameMap map_;
  std::string path_;
};

}  // namespace sb
