// The walk that lowers a plan's nodes to GPU steps: what every op shares, and the ops of which each needs its own rows. Products of planes
// with few tokens and runs of columns are in lowering_few.cc, attention is in lowering_attention.cc.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>

#include "device/webgpu/chain.h"
#include "device/webgpu/columns.h"
#include "device/webgpu/kernel_text.h"
#include "device/webgpu/lowering.h"
#include "formats/planes.h"

namespace sb {

/// Up to this many tokens a product reads its weights a row at a time; above, in tiles.
inline constexpr int64_t kFewTokens = 4;
inline constexpr uint32_t kGroupsX = 32768;  // workgroups along x; the rest go along z

inline uint32_t aligned(uint64_t words) { return uint32_t((words + 63) / 64 * 64); }

inline std::string number(uint32_t n) { return std::to_string(n) + "u"; }

inline std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = char(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

inline const char* activation_name(Activation act) {
  constexpr const char* kNames[] = {"silu", "gelu_tanh", "gelu_erf", "relu"};
  return kNames[size_t(act)];
}

/// Words of scratch that a program's steps share: inputs made ready for planes, what blocks of products give to the next, sums of squares,
/// what splits of attention leave, angles.
struct Scratch {
  uint32_t packed = 0, carry = 0, squares = 0, splits = 0, angles = 0;
};

/// Walks the nodes. The first walk has neither weights nor places, and finds out what is chained with what and how much scratch there is;
/// the second makes the steps.
class Lowering {
 public:
  Lowering(const Plan& plan, bool half, Scratch scratch, GpuWeights* weights, const ArenaLayout* layout)
      : plan_(plan), weights_(weights), half_(half) {
    packed_at_ = kGpuIdsAt + aligned(uint64_t(plan.n_tokens()));
    carry_at_ = packed_at_ + scratch.packed;
    squares_at_ = carry_at_ + scratch.carry;
    splits_at_ = squares_at_ + scratch.squares;
    angles_at_ = splits_at_ + scratch.splits;
    place_values(angles_at_ + scratch.angles, layout);
    uses_.assign(plan.values().size(), 0);
    for (const Node& node : plan.nodes()) {
      for (const int32_t in : node.inputs) {
        if (in >= 0) ++uses_[size_t(plan.root(in))];
      }
    }
    for (const Output& output : plan.outputs()) ++uses_[size_t(plan.root(output.value))];
  }

  Result<GpuLowered> run() {
    const std::vector<Node>& nodes = plan_.nodes();
    for (size_t i = 0; i < nodes.size();) {
      begin_ = -1;
      index_ = i;
      size_t n = 1;  // nodes that this makes
      if (const size_t end = columns_run(i)) {
        const bool is_inside = is_made_inside(nodes[end]);
        n = end - i + is_inside;
        index_ = i + n - 1;
        SB_OK(is_inside ? few_planes(i) : lower_columns(i, end));
      } else if (const auto heads = one_attention(i)) {
        n = heads->end - i;
        index_ = heads->end - 1;
        lower_one(*heads);
      } else {
        SB_OK(std::visit([&](const auto& op) { return lower(op, nodes[i]); }, nodes[i].op));
      }
      for (size_t k = 0; k < n; ++k) {
        times_.begin.push_back(begin_ < 0 ? now() : begin_);
        times_.end.push_back(now());
      }
      i += n;
    }
    close();
    return std::move(out_);
  }
  uint64_t arena_words() const { return out_.arena_words; }
  const NodeTimes& times() const { return times_; }
  Scratch scratch() const {
    return {aligned(packed_words_), 2 * aligned(carry_words_), aligned(squares_words_), aligned(splits_words_), aligned(angles_words_)};
  }

 private:
  const Value& value(int32_t v) const { return plan_.values()[size_t(v)]; }
  uint32_t at(int32_t v) const { return out_.value_at[size_t(v)]; }
  uint32_t stride(int32_t v) const { return out_.value_stride[size_t(v)]; }
  uint32_t width(int32_t v) const { return uint32_t(value(v).shape[-1]); }
  int64_t rows(int32_t v) const { return value(v).shape[0]; }
  int32_t now() const { return int32_t(out_.steps.size()); }

  void place_values(uint64_t begin, const ArenaLayout* layout) {
    const size_t n = plan_.values().size();
    out_.value_at.assign(n, 0);
    out_.value_stride.assign(n, 0);
    for (size_t i = 0; i < n; ++i) {
      if (plan_.values()[i].kind != ValueKind::kActivation) continue;
      const auto root = size_t(plan_.root(int32_t(i)));
      out_.value_stride[i] = uint32_t(plan_.values()[root].shape[-1]);
      if (!layout || layout->offset[root] < 0) continue;
      out_.value_at[i] = uint32_t(begin + uint64_t(layout->offset[root]) / 4) + first_column(int32_t(i));
    }
    out_.arena_words = begin + uint64_t(layout ? layout->n_bytes / 4 : 0);
  }

  /// Where a small vector lies: a norm, a bias, a constant.
  uint32_t vector(int32_t v) const {
    if (v < 0 || !weights_) return kGpuNone;
    if (value(v).kind == ValueKind::kConstant) return weights_->vector(std::span<const float>(value(v).constant));
    return weights_->vector(value(v).weight);
  }
  uint32_t halves(const uint16_t* from, int64_t n) const {
    if (!from || !weights_) return kGpuNone;
    return weights_->vector(TensorView{reinterpret_cast<const std::byte*>(from), Dtype::kF16, {n}, 2 * n});
  }
  uint32_t signs(const PlaneMatrix& m) const {
    if (!m.hadamard || !weights_) return kGpuNone;
    return weights_->vector(std::span(m.signs, size_t(m.words_per_row())));
  }

  // ---- Steps ----

  static RowText row(std::string_view name, WgslHoles holes = {}, uint32_t local = 0) {
    return {std::string(name), wgsl("rows/" + std::string(name), holes), local};
  }
  /// Columns of y when its inputs are whole values as wide; else 0.
  uint32_t local(int32_t y, std::initializer_list<int32_t> inputs) const {
    for (int32_t x : inputs) {
      if (value(x).alias_of >= 0 || width(x) != width(y)) return 0;
    }
    return width(y);
  }

  void close() {
    if (!chain_.empty()) push(chain_.finish());
  }
  void push(GpuStep step) {
    if (begin_ < 0) begin_ = now();
    step.text = "// " + step.name + "\n" + step.text;  // the first line is the pipeline's label
    out_.steps.push_back(std::move(step));
  }
  void stage(int64_t n_tokens, RowText text, const std::vector<uint32_t>& words, const std::vector<std::string>& shared = {},
             int32_t layer = -1) {
    if (!chain_.takes(n_tokens, layer)) close();
    if (begin_ < 0) begin_ = now();
    chain_.add(n_tokens, std::move(text), words, shared, layer);
  }
  /// A dispatch of `n` workgroups for each of n_tokens.
  static void set_groups(GpuStep& step, int64_t n, int64_t n_tokens) {
    step.groups[0] = uint32_t(std::min<int64_t>(n, kGroupsX));
    step.groups[1] = uint32_t(n_tokens);
    step.groups[2] = uint32_t((n + kGroupsX - 1) / kGroupsX);
  }

  // ---- Matrices ----

  /// A run of a matrix's rows as one binding has them.
  struct Part {
    GpuId buffer[2] = {0, 0};
    int64_t first_row = 0, n_rows = 0;
  };
  Result<std::vector<Part>> parts(const TensorView& w) {
    if (!weights_) return std::vector<Part>{{{0, 0}, 0, w.planes ? w.planes->n_rows : w.shape[0]}};
    std::vector<Part> out;
    for (int set = 0; set < (w.planes ? w.planes->n_sets : 1); ++set) {
      SB_TRY(std::shared_ptr<const GpuMatrix> matrix, w.planes ? weights_->planes(*w.planes, set) : weights_->rows(w));
      out.resize(matrix->size());
      for (size_t i = 0; i < matrix->size(); ++i) {
        const GpuPiece& piece = (*matrix)[i];
        out[i].buffer[set] = piece.buffer.id();
        out[i].first_row = piece.first_row;
        out[i].n_rows = piece.n_rows;
      }
      out_.matrices.push_back(std::move(matrix));
    }
    return out;
  }
  /// The text of load4(row, k), which gives four weights, and what it calls row n of the product.
  struct Loader {
    std::string text, row;
  };
  static Loader loader(const TensorView& w) {
    if (!w.planes) return {wgsl("weights") + wgsl("decode/" + lower_case(dtype_name(w.dtype))), "(n * P[2].x)"};
    const PlaneMatrix& m = *w.planes;
    std::string text = wgsl("planes", {{"$SETS", m.n_sets > 1 ? "set0(r, k) + set1(r, k)" : "set0(r, k)"}});
    for (int set = 0; set < m.n_sets; ++set) {
      const PlaneCode& code = m.sets[set].code;
      text += wgsl("planes_set", {{"$SET", std::to_string(set)},
                                  {"$BINDING", std::to_string(4 + set)},
                                  {"$SCALES", std::to_string(4 + set)},
                                  {"$TAPS", number(uint32_t(code.n_taps))},
                                  {"$PLANES", number(uint32_t(code.n_planes))}});
    }
    return {std::move(text), "(P[2].x + n)"};
  }
  /// The words from P[3] on that planes.wgsl wants, for rows from first_row on.
  std::vector<uint32_t> plane_params(const PlaneMatrix& m, int64_t first_row) const {
    std::vector<uint32_t> out = {uint32_t(m.words_per_row()), uint32_t(m.segment), 0, 0};
    for (int set = 0; set < m.n_sets; ++set) {
      out.insert(out.end(),
                 {row_scales(m, set) + uint32_t(first_row), halves(m.sets[set].column_scale, m.n_columns), filter(m.sets[set].code), 0});
    }
    return out;
  }
  uint32_t row_scales(const PlaneMatrix& m, int set) const {
    const RowScales& scale = m.sets[set].row_scale;
    if (!scale.floats) return halves(scale.halves, m.n_rows);
    return weights_ ? weights_->vector(std::span(scale.floats, size_t(m.n_rows))) : kGpuNone;
  }
  uint32_t filter(const PlaneCode& code) const {
    std::vector<float> taps;
    for (int q = 0; q < code.n_taps; ++q)
      taps.insert(taps.end(), code.filter[size_t(q)].begin(), code.filter[size_t(q)].begin() + code.n_planes);
    return weights_ ? weights_->vector(std::span<const float>(taps)) : kGpuNone;
  }
  /// The call in a stage's text that rotates, nothing where there is no rotation, and the texts that it needs.
  struct Rotation {
    std::string call;
    std::vector<std::string> shared;
  };
  static Rotation rotation(int block) {
    if (!block) return {"", {wgsl("rows/hadamard")}};
    char root[32];
    std::snprintf(root, sizeof root, "%.9g", 1 / std::sqrt(double(block)));
    return {"hadamard" + std::to_string(block) + "(l);",
            {wgsl("rows/hadamard"), wgsl("rows/hadamard_block", {{"$BLOCK", std::to_string(block)}, {"$ROOT", root}})}};
  }

  // ---- Ops ----

  Status lower(const Embed& op, const Node& node) {
    close();
    const TensorView& table = value(node.inputs[0]).weight;
    const int32_t y = node.output;
    const uint32_t ids = op.by_position ? kGpuNone : kGpuIdsAt;
    SB_TRY(std::vector<Part> pieces, parts(table));
    const Loader how = loader(table);
    for (const Part& part : pieces) {
      if (table.planes) {
        const PlaneMatrix& m = *table.planes;
        Rotation turn = rotation(m.hadamard);
        turn.shared.push_back(how.text);
        chain_.read(part.buffer[0], part.buffer[1], plane_params(m, part.first_row));
        stage(
            rows(y), row("embed_planes", {{"$HADAMARD", turn.call}}),
            {ids, at(y), stride(y), width(y), uint32_t(table.first_row - part.first_row), uint32_t(part.n_rows), signs(m), bits(op.scale)},
            turn.shared);
      } else {
        chain_.read(part.buffer[0], 0, {});
        stage(rows(y), row("embed"),
              {ids, at(y), stride(y), width(y), uint32_t(part.first_row), uint32_t(part.n_rows), uint32_t(table.row_bytes), bits(op.scale)},
              {how.text});
      }
      close();
    }
    return {};
  }

  Status lower(const MatMul&, const Node& node) {
    const TensorView& w = value(node.inputs[1]).weight;
    const int32_t x = node.inputs[0], y = node.output;
    const int64_t n_tokens = rows(x);
    uint32_t x_at = at(x), x_stride = stride(x);
    if (w.planes) {
      const PlaneMatrix& m = *w.planes;
      if (n_tokens <= kFewTokens) return few_planes(index_);
      // x̃ = Had(su ⊙ x), which the tiles meet decoded rows with.
      const Rotation turn = rotation(m.hadamard);
      packed_words_ = std::max(packed_words_, uint64_t(n_tokens * m.n_columns));
      stage(n_tokens, row("rotate", {{"$HADAMARD", turn.call}}),
            {at(x), stride(x), packed_at_, uint32_t(m.n_columns), width(x), uint32_t(m.n_columns), signs(m)}, turn.shared);
      x_at = packed_at_;
      x_stride = uint32_t(m.n_columns);
    }
    close();
    const bool is_few = n_tokens <= kFewTokens;
    const int64_t n_columns = w.planes ? w.planes->n_columns : w.shape[1];
    const uint32_t bias = vector(node.inputs[2]);
    SB_TRY(std::vector<Part> pieces, parts(w));
    const Loader how = loader(w);
    for (const Part& part : pieces) {
      const int64_t begin = std::max(w.first_row, part.first_row), end = std::min(w.first_row + w.shape[0], part.first_row + part.n_rows);
      if (begin >= end) continue;
      const auto done = uint32_t(begin - w.first_row);  // rows of y before these
      GpuStep step;
      step.name = std::string(is_few ? "matmul_few " : "matmul_many ") + dtype_name(w.dtype);
      step.text = wgsl("prelude") + wgsl("access") + how.text +
                  wgsl(is_few ? "matmul_few" : "matmul_many", {{"$ROW", how.row}, {"$KEEP", std::string(kKeepLayout)}});
      step.params = {x_at, x_stride, at(y), stride(y), uint32_t(end - begin), uint32_t(n_columns), bias == kGpuNone ? bias : bias + done,
                     done};
      step.params.push_back(w.planes ? uint32_t(begin - part.first_row) : uint32_t(w.row_bytes));
      step.params.resize(12);
      if (w.planes) {
        const std::vector<uint32_t> more = plane_params(*w.planes, part.first_row);
        step.params.insert(step.params.end(), more.begin(), more.end());
      }
      step.params.resize(24);
      step.params.push_back(uint32_t(n_tokens));
      step.weights[0] = part.buffer[0];
      step.weights[1] = part.buffer[1];
      if (is_few) {
        set_groups(step, (end - begin + 3) / 4, n_tokens);
      } else {
        set_groups(step, (end - begin + 31) / 32, (n_tokens + 31) / 32);
      }
      push(std::move(step));
    }
    return {};
  }

  /// What a product of planes with few tokens packs its input into, a place a set.
  struct Packing {
    uint32_t block = 0, stride = 0;  // inputs with one scale; words a token
    std::array<uint32_t, 2> at{};
    std::vector<RowText> stages;
    std::vector<std::vector<uint32_t>> words;
    std::vector<std::string> shared;
  };
  /// `is_inside`: into the workgroup's memory, not into the arena.
  Packing packing(const Node& node, bool is_inside = false);

  /// Words of a row of a plane that a lane reads at a time: as many as rows begin at.
  static uint32_t chunk_words(const PlaneMatrix& m) {
    const auto n_words = uint32_t(m.words_per_row());
    const auto most = uint32_t(m.hadamard ? m.hadamard : 128) / 32;  // a chunk has one scale
    return n_words % 4 == 0 && most >= 4 ? 4 : n_words % 2 == 0 && most >= 2 ? 2 : 1;
  }
  static std::string pack_text(const PlaneMatrix& m, uint32_t block, const std::string& turn);

  /// Planes and few tokens: the input packed in 8 bits, one-bit products, the filter (docs/formats.md §1).
  /// It makes its input itself where nodes from `begin` to it are left.
  Status few_planes(size_t begin);

  /// planes_few.wgsl for a set: as many words at a time as rows begin at, loads before products, everything unrolled in the text.
  static std::string products_text(const PlaneMatrix& m, const PlaneCode& code, uint32_t block, const Columns* inside);
  /// The taps of a filter, unrolled.
  static std::string filter_text(const PlaneCode& code);

  // ---- Runs of columns ----

  int uses(int32_t v) const { return uses_[size_t(plan_.root(v))]; }
  static bool is_columns_op(const Op& op) {
    return std::holds_alternative<Add>(op) || std::holds_alternative<Glu>(op) || std::holds_alternative<Activate>(op) ||
           std::holds_alternative<SoftCap>(op) || std::holds_alternative<RmsNorm>(op);
  }
  /// Whether the nodes from `begin` on are ops over the same columns until a product of planes with few tokens takes what they end in:
  /// where they end; 0: no. A norm is the last, since its division is that product's.
  size_t columns_run(size_t begin) const;
  uint32_t first_column(int32_t v) const {
    int64_t column = 0;
    for (; value(v).alias_of >= 0; v = value(v).alias_of) column += value(v).first_column;
    return uint32_t(column);
  }
  /// Whether the nodes from `begin` on, which are made into one step, are all that read y, and can add what its blocks lack.
  bool takes_carry(size_t begin, int32_t y, uint32_t rows_before) const;

  /// The nodes [begin, end) written into `columns`: their last value, and their names.
  std::pair<Columns::Register, std::string> columns_of(Columns& columns, size_t begin, size_t end);
  /// Whether a product of planes is better off making its small input itself, in every workgroup anew, than a dispatch before it.
  bool is_made_inside(const Node& product) const {
    const PlaneMatrix& m = *value(product.inputs[1]).weight.planes;
    return m.n_columns <= 2048 && width(product.output) <= 8192 && uses(product.inputs[0]) == 1;
  }

  Status lower_columns(size_t begin, size_t end);

  Status lower(const RmsNorm& op, const Node& node) {
    const int32_t x = node.inputs[0], g = node.inputs[1], y = node.output;
    stage(rows(y), row("rms_norm", {{"$LANES", width(g) == width(x) ? "256u" : "32u"}}),
          {at(x), stride(x), at(y), stride(y), width(x), vector(g), width(g), bits(op.eps), bits(op.offset)});
    return {};
  }
  Status lower(const LayerNorm& op, const Node& node) {
    const int32_t x = node.inputs[0], y = node.output;
    stage(rows(y), row("layer_norm"),
          {at(x), stride(x), at(y), stride(y), width(x), vector(node.inputs[1]), vector(node.inputs[2]), bits(op.eps)});
    return {};
  }
  Status lower(const RopeTable&, const Node& node) {
    const int32_t y = node.output;
    const auto place = uint32_t(angles_at_ + angles_words_);
    out_.value_at[size_t(y)] = place;
    out_.angles.push_back({place, value(node.inputs[0]).constant});
    angles_words_ += uint64_t(value(y).shape.elements());
    return {};
  }
  /// How element d of a head turns with another, n pairs in all: by which pair's angle, as which of the two, with which.
  static void fill_turns(std::string& text, RopeStyle style) {
    const bool halves = style == RopeStyle::kHalves;
    fill(text, {{"$PAIR", halves ? "d % max(n, 1u)" : "d / 2u"},
                {"$SECOND", halves ? "d >= n" : "(d & 1u) == 1u"},
                {"$OTHER", halves ? "select(d + n, d - n, d >= n)" : "(d ^ 1u)"}});
  }
  Status lower(const Rope& op, const Node& node) {
    const int32_t x = node.inputs[0], table = node.inputs[1], y = node.output;
    RowText text = row("rope");
    fill_turns(text.text, op.style);
    stage(rows(y), std::move(text),
          {at(x), stride(x), at(y), stride(y), width(x), at(table), stride(table), uint32_t(op.head_dim), width(table) / 2});
    return {};
  }
  Status lower(const CacheWrite& op, const Node& node) {
    const int32_t x = node.inputs[0];
    const uint32_t n = half_ ? (width(x) + 1) / 2 * 2 : width(x);
    const char* to = op.part == KvPart::kKeys ? "keys" : "values";
    stage(rows(x), row(half_ ? "cache_write_half" : "cache_write", {{"$TO", to}}), {at(x), stride(x), width(x), n}, {wgsl("cache_write")},
          op.layer);
    return {};
  }
  const Node* next_node() const { return index_ + 1 < plan_.nodes().size() ? &plan_.nodes()[index_ + 1] : nullptr; }
  /// How the next node packs y; no stages where it does not.
  Packing packing_behind(int32_t y) {
    const Node* next = next_node();
    const bool is_product = next && std::holds_alternative<MatMul>(next->op) && next->inputs[0] == y;
    if (!is_product || rows(y) > kFewTokens || !value(next->inputs[1]).weight.planes) return {};
    return packing(*next);
  }

  Status lower(const Attention& op, const Node& node);
  /// One token's attention with what lies between the products of q, k and v and it.
  struct OneAttention {
    const Attention* op = nullptr;
    size_t end = 0;                                // the node behind
    int32_t q = -1, k = -1, v = -1;                // as the products leave them
    int32_t q_gain = -1, k_gain = -1, table = -1;  // norms of heads and angles, or none
    const Rope* rope = nullptr;
    const RmsNorm* norm = nullptr;
  };
  std::optional<OneAttention> one_attention(size_t begin) const;
  void lower_one(const OneAttention& a);
  /// Heads of whole blocks are packed right away for the product behind: the calls, what they need, their parameters from P[first] on.
  void pack_heads(int32_t y, uint32_t dh, size_t first, std::string& helpers, std::string& calls, std::vector<uint32_t>& words);
  /// Whether a and b are the two halves of one value.
  bool is_folded(int32_t a, int32_t b) const {
    const Value &first = value(a), &second = value(b);
    return first.alias_of >= 0 && first.alias_of == second.alias_of && value(first.alias_of).alias_of < 0 && first.first_column == 0 &&
           second.first_column == int64_t(width(a)) && stride(a) == 2 * width(a);
  }
  Status lower(const Glu& op, const Node& node) {
    const int32_t a = node.inputs[0], b = node.inputs[1], y = node.output;
    stage(rows(y), row("glu", {{"$ACT", activation_name(op.act)}}, is_folded(a, b) ? width(y) : local(y, {a, b})),
          {at(a), stride(a), at(b), stride(b), at(y), stride(y), width(y)}, {wgsl("rows/activations")});
    return {};
  }
  Status lower(const Activate& op, const Node& node) {
    const int32_t x = node.inputs[0], y = node.output;
    stage(rows(y), row("activate", {{"$ACT", activation_name(op.act)}}, local(y, {x})), {at(x), stride(x), at(y), stride(y), width(y)},
          {wgsl("rows/activations")});
    return {};
  }
  Status lower(const SoftCap& op, const Node& node) {
    const int32_t x = node.inputs[0], y = node.output;
    stage(rows(y), row("softcap", {}, local(y, {x})), {at(x), stride(x), at(y), stride(y), width(y), bits(op.cap)},
          {wgsl("rows/activations")});
    return {};
  }
  Status lower(const Add&, const Node& node) {
    const int32_t a = node.inputs[0], b = node.inputs[1], y = node.output;
    stage(rows(y), row("add", {}, local(y, {a, b})), {at(a), stride(a), at(b), stride(b), at(y), stride(y), width(y)});
    return {};
  }
  Status lower(const LastRow&, const Node& node) {
    const int32_t x = node.inputs[0], y = node.output;
    stage(1, row("copy"), {at(x) + uint32_t(rows(x) - 1) * stride(x), stride(x), at(y), stride(y), width(y)});
    return {};
  }

  const Plan& plan_;
  GpuWeights* weights_;
  bool half_;
  GpuLowered out_;
  NodeTimes times_;
  Chain chain_;
  int32_t begin_ = -1;                          // of the node being lowered
  const Node* packed_node_ = nullptr;           // a product whose input lies packed already
  std::pair<Carry, int32_t> carry_ = {{}, -1};  // of a product whose readers, the next step, add it
  struct {
    const Node* product = nullptr;       // whose input is a norm that is not divided yet
    uint32_t n = 0, share = 0, eps = 0;  // sums of squares; 1/D and eps as bits
  } normed_;
  bool is_odd_ = false;
  size_t index_ = 0;       // of the node being lowered, the last of those that become one step
  std::vector<int> uses_;  // of a root's value, by nodes and as outputs
  uint32_t packed_at_, carry_at_, squares_at_, splits_at_, angles_at_;
  uint64_t packed_words_ = 0, carry_words_ = 0, squares_words_ = 0, splits_words_ = 0, angles_words_ = 0;
};

}  // namespace sb
