// A plan is data: a flat list of nodes over numbered values. A model file writes it once a shape; a device compiles it once and replays
// it with new Scalars. Shapes are checked as nodes are added; the first error sticks and comes out of finish().
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/op.h"
#include "tensor/tensor.h"

namespace sb {

/// A value of the plan, or nothing (after an error).
struct Ref {
  int32_t index = -1;
  explicit operator bool() const { return index >= 0; }
};

enum class ValueKind : uint8_t {
  kWeight,      // a tensor of the model; `weight` sees it
  kConstant,    // small float32 data made while building (rope frequencies)
  kIds,         // the input: token ids, i32 [T]
  kActivation,  // made by a node, or given from outside (Plan::input)
};

struct Value {
  ValueKind kind = ValueKind::kActivation;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  TensorView weight;            // kWeight
  std::string name;             // kWeight: its Hugging Face name
  std::vector<float> constant;  // kConstant
  bool is_input = false;        // kActivation: filled by the caller
  int32_t alias_of = -1;        // a run of columns of another activation: no bytes of its own
  int64_t first_column = 0;     // of the aliased value
};

struct Node {
  Op op;
  std::array<int32_t, 4> inputs = {-1, -1, -1, -1};
  int32_t output = -1;  // -1: writes the cache only
};

struct Output {
  std::string name;
  int32_t value;
};

class Plan {
 public:
  explicit Plan(int64_t n_tokens) : n_tokens_(n_tokens) {}

  int64_t n_tokens() const { return n_tokens_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<Value>& values() const { return values_; }
  const std::vector<Output>& outputs() const { return outputs_; }
  const Value& value(Ref ref) const { return values_[size_t(ref.index)]; }
  const Shape& shape(Ref ref) const { return values_[size_t(ref.index)].shape; }

  Ref weight(const TensorView& view, std::string name = "");
  Ref constant(std::vector<float> data);
  /// Token ids of this run, i32 [T].
  Ref ids();
  /// An activation [T, width] that the caller fills before a run (Device::fill).
  Ref input(std::string name, int64_t width);
  /// Columns [first, first + n) of an activation, sharing its bytes.
  Ref columns(Ref x, int64_t first, int64_t n);
  /// Adds a node; `shape` is its output's, rank 0 for none. Called by ops/, which have checked the inputs.
  Ref add(Op op, std::initializer_list<Ref> inputs, Shape shape);
  /// All products of matrices so far are exact.
  void make_exact();
  /// Puts another tensor of the same shape in a weight's place.
  void replace_weight(int32_t index, const TensorView& view);
  /// Keeps the nodes [begin, end) and no others. The activations `given`, made by earlier ones, come from outside as "given.0" …; outputs
  /// that nothing gives any longer are dropped.
  void cut(size_t begin, size_t end, const std::vector<int32_t>& given);
  /// The activation that has the bytes of an alias; a value's own number otherwise.
  int32_t root(int32_t value) const;
  /// Names a value that the run must leave readable.
  void output(std::string name, Ref ref);

  /// Keeps the first error; everything after it is ignored.
  Ref fail(Error error);
  bool failed() const { return error_.has_value(); }
  Status finish() const;

 private:
  int64_t n_tokens_;
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<Output> outputs_;
  int32_t ids_ = -1;
  std::optional<Error> error_;
};

/// Where each activation lies in one arena: bytes are reused as soon as the last reader is done. Offsets are 64-byte aligned.
struct ArenaLayout {
  std::vector<int64_t> offset;  // bytes, one a value; -1 for values without bytes of their own
  int64_t n_bytes = 0;
};
/// Whether kernels take the stored types of a plan's weights: integers are token ids or codes of another format, and nothing multiplies
/// them; planes are matrices. Errors: kOpUnsupported {device, op, dtype}.
Status check_weights(const Plan& plan, std::string_view device);

/// When nodes run, as steps of a device that runs several at a time: node i from step begin[i] to end[i]. What one step touches has bytes
/// of its own. Both ascend.
struct NodeTimes {
  std::vector<int32_t> begin, end;
};
/// Without `times` each node is a step.
ArenaLayout plan_arena(const Plan& plan, const NodeTimes* times = nullptr);

}  // namespace sb
