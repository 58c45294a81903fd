#include "device/webgpu/lowering.h"

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
#include "formats/planes.h"

namespace sb {
namespace {

/// Up to this many tokens a product reads its weights a row at a time; above, in tiles.
constexpr int64_t kFewTokens = 4;
constexpr uint32_t kGroupsX = 32768;  // workgroups along x; the rest go along z

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
uint32_t aligned(uint64_t words) { return uint32_t((words + 63) / 64 * 64); }

std::string number(uint32_t n) { return std::to_string(n) + "u"; }

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = char(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

const char* activation_name(Activation act) {
  constexpr const char* kNames[] = {"silu", "gelu_tanh", "gelu_erf", "relu"};
  return kNames[size_t(act)];
}

/// Words of scratch that a program's steps share: inputs made ready for planes, what blocks of products give to the next, sums of squares,
/// angles.
struct Scratch {
  uint32_t packed = 0, carry = 0, squares = 0, angles = 0;
};

/// Walks the nodes. The first walk has neither weights nor places, and finds out what is chained with what and how much scratch there is;
/// the second makes the steps.
class Lowering {
 public:
  Lowering(const Plan& plan, bool half, Scratch scratch, GpuWeights* weights, const ArenaLayout* layout)
      : plan_(plan), weights_(weights), half_(half) {
    packed_at_ = kGpuIdsAt + aligned(uint64_t(plan.n_tokens()));
    carry_at_ = packed_at_ + scratch.packed;
    carry_room_ = scratch.carry / 2;
    squares_at_ = carry_at_ + scratch.carry;
    angles_at_ = squares_at_ + scratch.squares;
    place_values(angles_at_ + scratch.angles, layout);
  }

  Result<GpuLowered> run() {
    const std::vector<Node>& nodes = plan_.nodes();
    for (size_t i = 0; i < nodes.size();) {
      begin_ = -1;
      next_ = i + 1 < nodes.size() ? &nodes[i + 1] : nullptr;
      index_ = i;
      size_t n = 1;  // nodes that this makes
      if (const size_t end = columns_run(i)) {
        if (is_made_inside(nodes[end])) {
          inside_ = {i, end};
          index_ = end;
          next_ = end + 1 < nodes.size() ? &nodes[end + 1] : nullptr;
          SB_OK(few_planes(nodes[end]));
          inside_ = std::pair<size_t, size_t>();
          n = end + 1 - i;
        } else {
          SB_OK(lower_columns(i, end));
          n = end - i;
        }
      } else if (const auto heads = one_attention(i)) {
        lower_one(*heads);
        n = heads->end - i;
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
  Scratch scratch() const { return {aligned(packed_words_), 2 * aligned(carry_words_), aligned(squares_words_), aligned(angles_words_)}; }

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
      uint64_t column = 0;
      for (int32_t v = int32_t(i); value(v).alias_of >= 0; v = value(v).alias_of) column += uint64_t(value(v).first_column);
      out_.value_at[i] = uint32_t(begin + uint64_t(layout->offset[root]) / 4 + column);
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
      if (n_tokens <= kFewTokens) return few_planes(node);
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
  Packing packing(const Node& node) {
    const PlaneMatrix& m = *value(node.inputs[1]).weight.planes;
    const int32_t x = node.inputs[0];
    Packing p;
    p.block = uint32_t(m.hadamard ? m.hadamard : 128);
    p.stride = uint32_t((m.n_columns / 4 + 2 * ((m.n_columns + p.block - 1) / p.block) + 3) / 4 * 4);
    const Rotation turn = rotation(m.hadamard);
    p.shared = turn.shared;
    p.shared.push_back(pack_text(m, p.block, turn.call));
    p.shared.push_back(wgsl("rows/packed_arena"));
    for (int set = 0; set < m.n_sets; ++set) {
      p.at[size_t(set)] = packed_at_ + uint32_t(set * rows(x)) * p.stride;
      p.stages.push_back(row("pack", {}, value(x).alias_of < 0 ? width(x) : 0));
      p.words.push_back({at(x), stride(x), p.at[size_t(set)], p.stride, width(x), uint32_t(m.n_columns), signs(m),
                         halves(m.sets[set].column_scale, m.n_columns)});
    }
    packed_words_ = std::max(packed_words_, uint64_t(m.n_sets * rows(x)) * p.stride);
    return p;
  }

  /// Words of a row of a plane that a lane reads at a time: as many as rows begin at.
  static uint32_t chunk_words(const PlaneMatrix& m) {
    const auto n_words = uint32_t(m.words_per_row());
    return n_words % 4 == 0 ? 4 : n_words % 2 == 0 ? 2 : 1;
  }
  static std::string pack_text(const PlaneMatrix& m, uint32_t block, const std::string& turn) {
    std::string most, whole;
    for (uint32_t i = 0; i < block / 8; ++i) {
      most += "most = larger(most, part[lane0 + " + number(i) + "]);\n";
      whole += "whole += part[lane0 + " + number(i) + "];\n";
    }
    return wgsl(
        "rows/pack_columns",
        {{"$HADAMARD", turn}, {"$BLOCK", number(block)}, {"$FOURS", number(2 * chunk_words(m))}, {"$MOST", most}, {"$WHOLE", whole}});
  }

  /// Planes and few tokens: the input packed in 8 bits, one-bit products, the filter (docs/formats.md §1).
  Status few_planes(const Node& node) {
    const TensorView& w = value(node.inputs[1]).weight;
    const PlaneMatrix& m = *w.planes;
    const int32_t x = node.inputs[0], y = node.output;
    const int64_t n_tokens = rows(x);
    // Rows of whole segments: the filter goes around in them.
    const int64_t first = w.first_row / m.segment * m.segment;
    const int64_t end = std::min(m.n_rows, (w.first_row + w.shape[0] + m.segment - 1) / m.segment * m.segment);
    Packing packed = packing(node);
    for (size_t i = 0; i < packed.stages.size() && packed_node_ != &node && inside_.second == 0; ++i) {
      stage(n_tokens, std::move(packed.stages[i]), packed.words[i], packed.shared);
    }
    is_odd_ = !is_odd_;  // what an earlier product's rows lack may be read while this one runs
    Carry carry{carry_at_, uint32_t((end - first) / 32 * 8), uint32_t(w.first_row - first), uint32_t(m.segment / 32), 0};
    for (int set = 0; set < m.n_sets; ++set) carry.n = std::max(carry.n, uint32_t(m.sets[set].code.n_taps - 1));
    carry_words_ = std::max(carry_words_, uint64_t(n_tokens) * carry.stride);
    carry.at += is_odd_ ? carry_room_ : 0;
    const std::pair<Carry, int32_t> before = carry_;  // of what is read here
    close();
    const size_t n_steps = out_.steps.size();
    SB_TRY(std::vector<Part> pieces, parts(w));
    for (int set = 0; set < m.n_sets; ++set) {
      const PlaneCode& code = m.sets[set].code;
      for (const Part& part : pieces) {
        const int64_t from = std::max(first, part.first_row), to = std::min(end, part.first_row + part.n_rows);
        if (from >= to) continue;
        GpuStep step;
        step.name = "planes_few";
        std::optional<Columns> inside;
        if (inside_.second) {
          inside = Columns::inside(width(node.inputs[0]), 8, out_.steps.size() == n_steps);
          carry_ = before;
          step.name = columns_of(*inside, inside_.first, inside_.second) + " planes_few";
          const Rotation turn = rotation(m.hadamard);
          std::vector<std::string> texts = turn.shared;
          texts.push_back(pack_text(m, packed.block, turn.call));
          texts.push_back(wgsl("rows/packed_group", {{"$FOURS", number((packed.stride + 3) / 4)}}));
          inside->pack(inside_result_, 0, 0, uint32_t(m.n_columns), signs(m), halves(m.sets[set].column_scale, m.n_columns), texts);
        }
        step.text = products_text(m, code, packed.block, inside ? &*inside : nullptr);
        step.params = {packed.at[size_t(set)],
                       packed.stride,
                       at(y),
                       stride(y),
                       width(y),
                       carry.rows_before,
                       uint32_t(from - first) / 32,
                       uint32_t(from - part.first_row),
                       row_scales(m, set) + uint32_t(first),
                       uint32_t(set),
                       set == 0 ? vector(node.inputs[2]) : kGpuNone,
                       squares_at_,
                       carry.at,
                       carry.stride,
                       carry.n_blocks,
                       0};
        step.params.resize(20);
        if (!inside && normed_.product == &node) {
          step.params[15] = normed_.n;
          step.params[16] = normed_.share;
          step.params[17] = normed_.eps;
        }
        for (int q = 0; q < code.n_taps; ++q) {
          for (int p = 0; p < code.n_planes; ++p) step.params.push_back(bits(code.filter[size_t(q)][size_t(p)]));
        }
        if (inside) {
          step.params.resize(32);
          step.params.insert(step.params.end(), inside->params().begin(), inside->params().end());
        }
        step.weights[0] = part.buffer[set];
        set_groups(step, (to - from) / 32, n_tokens);
        push(std::move(step));
      }
    }
    carry_ = {{}, -1};
    if (carry.n == 0) return {};
    if (takes_carry(index_ + 1, y)) {
      carry_ = {carry, y};
      return {};
    }
    stage(n_tokens, row("carry", {}, width(y)), {at(y), stride(y), width(y), carry.at, carry.stride, carry.rows_before, carry.n_blocks},
          {wgsl("carry", {{"$CARRY", number(carry.n)}})});
    return {};
  }

  /// planes_few.wgsl for a set: as many words at a time as rows begin at, loads before products, everything unrolled in the text.
  static std::string products_text(const PlaneMatrix& m, const PlaneCode& code, uint32_t block, const Columns* inside) {
    const auto n_words = uint32_t(m.words_per_row());
    const uint32_t n = chunk_words(m);
    const auto P = uint32_t(code.n_planes);
    const uint32_t n_chunks = n_words / n;
    std::string sums, loads, products, lanes, reduce;
    for (uint32_t r = 0; r < 2; ++r) {
      for (uint32_t p = 0; p < P; ++p) {
        const std::string id = std::to_string(r * P + p);
        sums += "var sum" + id + " = 0.0;\n";
        loads += "var w" + id + " = W[row + " + number((r * P + p) * n_chunks) + " + c];\n";
        lanes += "{\nlet i = pair * " + number(2 * P) + " + " + number(r * P + p) + ";\nlane_put(i * 16u + (lane ^ (i & 15u)), 2.0 * sum" +
                 id + " - whole);\n}\n";
      }
    }
    for (uint32_t i = 0; i < 2 * n; ++i)
      loads += "let x" + std::to_string(i) + " = " + (inside ? "packed[" : "arena[(x >> 2u) + ") + number(i * n_chunks) + " + c];\n";
    const std::string at = "c * " + number(n * 32) + " / " + number(block);
    const std::string from = inside ? "bitcast<f32>(packed_at(" : "ld((x + ", close = "))";
    loads += "let scale = " + from + "kScales + " + at + close + ";\n";
    loads += "whole += select(0.0, " + from + "kWholes + " + at + close + ", c * " + number(n * 32) + " % " + number(block) + " == 0u);\n";
    constexpr const char* kMasks[] = {"0x01010101u", "0x02020202u", "0x04040404u", "0x08080808u"};
    for (uint32_t id = 0; id < 2 * P; ++id) {
      const std::string w = "w" + std::to_string(id);
      std::string bits[4];
      for (uint32_t j = 0; j < n; ++j) {
        const std::string one = n == 1 ? w : w + "." + "xyzw"[j], a = "x" + std::to_string(2 * j), b = "x" + std::to_string(2 * j + 1);
        for (int i = 0; i < 4; ++i) {
          bits[i] += (j ? " + " : "") + ("dot4I8Packed(" + one + " & " + kMasks[i] + ", " + a + "." + "xyzw"[i] + ")") +
                     " + dot4I8Packed((" + one + " >> 4u) & " + kMasks[i] + ", " + b + "." + "xyzw"[i] + ")";
        }
      }
      products += "sum" + std::to_string(id) + " += scale * f32((" + bits[0] + ") + ((" + bits[1] + ") >> 1u) + ((" + bits[2] +
                  ") >> 2u) + ((" + bits[3] + ") >> 3u));\n";
    }
    for (uint32_t i = 0; i < 16; ++i) reduce += "sum += lane_at(i * 16u + (" + number(i) + " ^ (i & 15u)));\n";
    const std::string before = inside ? "let k = l * 8u;\n" + inside->body() : "";
    const std::string helpers = inside ? "const kColumns = " + number(inside->width()) + ";\n" + wgsl("rows/main") + inside->helpers() : "";
    return wgsl("prelude") + wgsl("access4") + helpers +
           wgsl("planes_few", {{"$LANES_AT", inside ? wgsl("lanes_shared") : wgsl("lanes_own", {{"$PLANES", std::to_string(P)}})},
                               {"$PROLOGUE", before},
                               {"$PLANES", std::to_string(P)},
                               {"$WORDS", n == 1 ? "u32" : "vec" + std::to_string(n) + "u"},
                               {"$CHUNKS", number(n_chunks)},
                               {"$SCALES", number(uint32_t(m.n_columns) / 4)},
                               {"$WHOLES", number(uint32_t(m.n_columns) / 4 + (uint32_t(m.n_columns) + block - 1) / block)},
                               {"$SUMS", sums},
                               {"$LOADS", loads},
                               {"$PRODUCTS", products},
                               {"$LANES", lanes},
                               {"$REDUCE", reduce},
                               {"$FILTER", filter_text(code)},
                               {"$KEEP", std::string(kKeepLayout)}});
  }
  /// The taps of a filter, unrolled.
  static std::string filter_text(const PlaneCode& code) {
    std::string text;
    const auto P = uint32_t(code.n_planes);
    for (uint32_t q = 0; q < uint32_t(code.n_taps); ++q) {
      const std::string row = "l - " + number(q);
      std::string sum;
      for (uint32_t p = 0; p < P; ++p) {
        const uint32_t i = q * P + p;
        sum += (p ? " + " : "") + ("bitcast<f32>(P[" + std::to_string(5 + i / 4) + "]." + "xyzw"[i % 4] + ") * z[(" + row + ") * " +
                                   number(P) + " + " + number(p) + "]");
      }
      text += "if (" + row + " < 32u) { y += " + sum + "; }\n";
    }
    return text;
  }

  // ---- Runs of columns ----

  int uses(int32_t v) const {
    int n = 0;
    for (const Node& node : plan_.nodes()) {
      for (const int32_t in : node.inputs) n += in >= 0 && plan_.root(in) == plan_.root(v);
    }
    for (const Output& output : plan_.outputs()) n += plan_.root(output.value) == plan_.root(v);
    return n;
  }
  static bool is_columns_op(const Op& op) {
    return std::holds_alternative<Add>(op) || std::holds_alternative<Glu>(op) || std::holds_alternative<Activate>(op) ||
           std::holds_alternative<SoftCap>(op) || std::holds_alternative<RmsNorm>(op);
  }
  /// Whether the nodes from `begin` on are ops over the same columns until a product of planes with few tokens takes what they end in:
  /// where they end; 0: no. A norm is the last, since its division is that product's.
  size_t columns_run(size_t begin) const {
    const std::vector<Node>& nodes = plan_.nodes();
    size_t i = begin;
    for (; i < nodes.size() && is_columns_op(nodes[i].op); ++i) {
      const int32_t y = nodes[i].output;
      if (rows(y) > kFewTokens || width(y) != width(nodes[begin].output) || width(y) % 8 || value(y).alias_of >= 0) return 0;
      for (const int32_t in : nodes[i].inputs) {
        if (in < 0 || value(in).kind != ValueKind::kActivation) continue;
        if (width(in) != width(y) || stride(in) % 4 || first_column(in) % 4) return 0;
      }
      if (std::holds_alternative<RmsNorm>(nodes[i].op)) {
        if (width(nodes[i].inputs[1]) != width(y) || uses(y) != 1) return 0;
        ++i;
        break;
      }
    }
    if (i == begin || i == nodes.size()) return 0;
    const Node& product = nodes[i];
    if (!std::holds_alternative<MatMul>(product.op) || product.inputs[0] != nodes[i - 1].output || !value(product.inputs[1]).weight.planes)
      return 0;
    return i;
  }
  uint32_t first_column(int32_t v) const {
    int64_t column = 0;
    for (; value(v).alias_of >= 0; v = value(v).alias_of) column += value(v).first_column;
    return uint32_t(column);
  }
  /// Whether the nodes from `begin` on, which are made into one step, are all that read y.
  bool takes_carry(size_t begin, int32_t y) const {
    size_t end = columns_run(begin);
    if (const auto heads = one_attention(begin)) end = heads->end;
    int n = 0;
    for (size_t i = begin; i < end; ++i) {
      for (const int32_t in : plan_.nodes()[i].inputs) n += in >= 0 && plan_.root(in) == y;
    }
    return n > 0 && n == uses(y);
  }

  /// The nodes [begin, end) written into `columns`; their last value is left in inside_result_. Returns their names.
  std::string columns_of(Columns& columns, size_t begin, size_t end) {
    const std::vector<Node>& nodes = plan_.nodes();
    const Node& product = nodes[end];
    std::map<int32_t, Columns::Register> registers;
    std::string name;
    auto get = [&](int32_t v) {
      const auto known = registers.find(v);
      if (known != registers.end()) return known->second;
      Carry carry = carry_.first;
      const bool lacks = carry_.second >= 0 && plan_.root(v) == carry_.second;
      carry.rows_before += lacks ? first_column(v) : 0;
      return registers[v] = columns.load(at(v), stride(v), lacks ? &carry : nullptr);
    };
    normed_ = {};
    for (size_t i = begin; i < end; ++i) {
      const Node& node = nodes[i];
      const int32_t a = node.inputs[0], b = node.inputs[1], y = node.output;
      Columns::Register x = 0;
      if (std::holds_alternative<Add>(node.op)) {
        const Columns::Register first = get(a);
        x = columns.add(first, get(b));
      } else if (const auto* glu = std::get_if<Glu>(&node.op)) {
        const Columns::Register gate = get(a);
        x = columns.glu(activation_name(glu->act), gate, get(b));
      } else if (const auto* act = std::get_if<Activate>(&node.op)) {
        x = columns.activate(activation_name(act->act), get(a));
      } else if (const auto* cap = std::get_if<SoftCap>(&node.op)) {
        x = columns.softcap(get(a), bits(cap->cap));
      } else {
        const auto& norm = std::get<RmsNorm>(node.op);
        x = columns.norm(get(a), vector(b), bits(norm.offset), bits(norm.eps), squares_at_);
        normed_ = {&product, columns.n_squares(), bits(1 / float(width(y))), bits(norm.eps)};
        squares_words_ = std::max(squares_words_, uint64_t(rows(y)) * columns.n_squares());
      }
      registers[y] = x;
      name += std::string(name.empty() ? "" : " ") + op_name(node.op);
      int inside = 0;
      for (size_t k = i + 1; k <= end; ++k) {
        for (const int32_t in : nodes[k].inputs) inside += in >= 0 && plan_.root(in) == y;
      }
      if (inside < uses(y)) columns.store(x, at(y), stride(y));
    }
    inside_result_ = registers[product.inputs[0]];
    return name;
  }
  /// Whether a product of planes is better off making its small input itself, in every workgroup anew, than a dispatch before it.
  bool is_made_inside(const Node& product) const {
    const PlaneMatrix& m = *value(product.inputs[1]).weight.planes;
    return m.n_columns <= 2048 && width(product.output) <= 8192 && uses(product.inputs[0]) == 1;
  }

  Status lower_columns(size_t begin, size_t end) {
    close();
    const std::vector<Node>& nodes = plan_.nodes();
    const Node& product = nodes[end];
    Columns columns(width(nodes[begin].output), rows(nodes[begin].output));
    const std::string name = columns_of(columns, begin, end);
    carry_ = {{}, -1};
    const Packing packed = packing(product);
    const PlaneMatrix& m = *value(product.inputs[1]).weight.planes;
    for (int set = 0; set < m.n_sets; ++set) {
      columns.pack(inside_result_, packed.at[size_t(set)], packed.stride, uint32_t(m.n_columns), signs(m),
                   halves(m.sets[set].column_scale, m.n_columns), packed.shared);
    }
    packed_node_ = &product;
    push(columns.finish(name + " pack"));
    return {};
  }

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
  Status lower(const Rope& op, const Node& node) {
    const int32_t x = node.inputs[0], table = node.inputs[1], y = node.output;
    const bool halves = op.style == RopeStyle::kHalves;
    stage(rows(y),
          row("rope", {{"$PAIR", halves ? "d % n" : "d / 2u"},
                       {"$SECOND", halves ? "d >= n" : "(d & 1u) == 1u"},
                       {"$OTHER", halves ? "select(d + n, d - n, d >= n)" : "(d ^ 1u)"}}),
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
  /// How the next node packs y; no stages where it does not.
  Packing packing_behind(int32_t y) {
    const bool is_product = next_ && std::holds_alternative<MatMul>(next_->op) && next_->inputs[0] == y;
    if (!is_product || rows(y) > kFewTokens || !value(next_->inputs[1]).weight.planes) return {};
    return packing(*next_);
  }

  Status lower(const Attention& op, const Node& node) {
    close();
    const int32_t q = node.inputs[0], y = node.output;
    const auto n = uint32_t(op.n_kv_heads * op.head_dim), dh = uint32_t(op.head_dim);
    const bool in_pairs = half_ && dh % 2 == 0;
    const uint32_t n_words = in_pairs ? dh / 2 : dh;
    if (n_words > 256)
      return err(Code::kOpUnsupported, {{"device", "webgpu"}, {"op", "attention with heads of " + std::to_string(dh)}, {"dtype", "F32"}});
    // So many words of a key at a time, all loads before the first sum.
    const uint32_t unroll = n_words % 8 == 0 ? 8 : n_words % 4 == 0 ? 4 : 1;
    std::string score;
    for (uint32_t i = 0; i < unroll; ++i) score += "let k" + std::to_string(i) + " = key_at(at + i + " + number(i) + ");\n";
    for (uint32_t i = 0; i < unroll; ++i) {
      const std::string n = std::to_string(i), term = "q[i + " + n + "u]";
      score += in_pairs ? "score += dot(" + term + ", k" + n + ");\n" : "score += " + term + " * k" + n + ";\n";
    }
    std::string helpers = wgsl("rows/main"), pack;
    std::vector<uint32_t> pack_words;
    pack_heads(y, dh, 3, helpers, pack, pack_words);
    GpuStep step;
    step.name = pack.empty() ? "attention" : "attention pack";
    step.text = wgsl("prelude") + wgsl("access") + helpers +
                wgsl(!half_     ? "cache_float"
                     : in_pairs ? "cache_half"
                                : "cache_half_odd") +
                wgsl("attention", {{"$WORDS", number(n_words)},
                                   {"$WORD", in_pairs ? "2u" : "1u"},
                                   {"$ELEMENTS", in_pairs ? "vec2f" : "f32"},
                                   {"$LANES", number(std::bit_ceil(n_words))},
                                   {"$LOAD_Q", in_pairs ? "vec2f(ld(x + 2u * l), ld(x + 2u * l + 1u))" : "ld(x + l)"},
                                   {"$STORE_Y", in_pairs ? "st(to + 2u * l, y.x);\nst(to + 2u * l + 1u, y.y);" : "st(to + l, y);"},
                                   {"$UNROLL", number(unroll)},
                                   {"$SCORE", score},
                                   {"$PACK", pack.empty() ? "" : wgsl("attention_pack", {{"$STAGES", pack}})},
                                   {"$KEEP", std::string(kKeepLayout)}});
    step.params = {at(q),
                   stride(q),
                   at(y),
                   stride(y),
                   uint32_t(op.n_heads / op.n_kv_heads),
                   dh,
                   uint32_t(op.window),
                   half_ ? (n + 1) / 2 * 2 : n,
                   bits(op.scale),
                   op.softcap > 0 ? bits(op.softcap) : 0};
    step.params.resize(12);
    step.params.insert(step.params.end(), pack_words.begin(), pack_words.end());
    step.kv_layer = op.layer;
    step.groups[0] = uint32_t(op.n_heads);
    step.groups[1] = uint32_t(rows(q));
    push(std::move(step));
    return {};
  }
  /// One token's attention with what lies between the products of q, k and v and it.
  struct OneAttention {
    const Attention* op = nullptr;
    size_t end = 0;                                // the node behind
    int32_t q = -1, k = -1, v = -1;                // as the products leave them
    int32_t q_gain = -1, k_gain = -1, table = -1;  // norms of heads and angles, or none
    const Rope* rope = nullptr;
    const RmsNorm* norm = nullptr;
  };
  std::optional<OneAttention> one_attention(size_t begin) const {
    const std::vector<Node>& nodes = plan_.nodes();
    OneAttention found;
    std::map<int32_t, const Node*> makers;
    int32_t k = -1;
    size_t i = begin;
    for (; i < nodes.size() && !found.op; ++i) {
      const Node& node = nodes[i];
      if (const auto* op = std::get_if<Attention>(&node.op)) {
        found.op = op;
        found.q = node.inputs[0];
      } else if (const auto* write = std::get_if<CacheWrite>(&node.op)) {
        (write->part == KvPart::kKeys ? k : found.v) = node.inputs[0];
      } else if (std::holds_alternative<Rope>(node.op) || std::holds_alternative<RmsNorm>(node.op)) {
        if (uses(node.output) != 1) return std::nullopt;
        makers[node.output] = &node;
      } else {
        return std::nullopt;
      }
    }
    if (!found.op || k < 0 || found.v < 0 || i < begin + 3 || makers.contains(found.v)) return std::nullopt;
    found.end = i;
    found.k = k;
    const uint32_t dh = uint32_t(found.op->head_dim), n_elements = half_ ? 8 : 4;
    if (rows(found.q) != 1 || dh % 8 || dh > 256 || uint32_t(found.op->n_kv_heads) * dh % n_elements) return std::nullopt;
    for (auto [x, gain] : {std::pair(&found.q, &found.q_gain), std::pair(&found.k, &found.k_gain)}) {
      if (const auto at = makers.find(*x); at != makers.end() && std::holds_alternative<Rope>(at->second->op)) {
        const Rope* rope = &std::get<Rope>(at->second->op);
        if (rope->head_dim != int32_t(dh) || (found.rope && rope->style != found.rope->style) ||
            (found.table >= 0 && found.table != at->second->inputs[1]))
          return std::nullopt;
        found.rope = rope;
        found.table = at->second->inputs[1];
        *x = at->second->inputs[0];
      } else if (found.rope) {
        return std::nullopt;  // keys that do not turn, beside queries that do
      }
      if (const auto at = makers.find(*x); at != makers.end()) {
        if (!std::holds_alternative<RmsNorm>(at->second->op) || width(at->second->inputs[1]) != dh) return std::nullopt;
        const RmsNorm* norm = &std::get<RmsNorm>(at->second->op);
        if (found.norm && (norm->eps != found.norm->eps || norm->offset != found.norm->offset)) return std::nullopt;
        found.norm = norm;
        *gain = at->second->inputs[1];
        *x = at->second->inputs[0];
      }
      if (makers.contains(*x)) return std::nullopt;
    }
    return found;
  }
  void lower_one(const OneAttention& a) {
    close();
    const Node& node = plan_.nodes()[a.end - 1];
    next_ = a.end < plan_.nodes().size() ? &plan_.nodes()[a.end] : nullptr;
    const Attention& op = *a.op;
    const int32_t y = node.output;
    const auto dh = uint32_t(op.head_dim);
    const uint32_t n_elements = half_ ? 8 : 4, n_words = dh / n_elements, lanes = std::bit_ceil(n_words);
    const bool halves = !a.rope || a.rope->style == RopeStyle::kHalves;
    std::string own, q, scores, most, highest, shrink, values, reduce;
    const uint32_t n_q = (n_words + 7) / 8;  // vec4u a lane
    auto index = [](const std::string& name, uint32_t i) { return name + std::to_string(i); };
    const std::string parts[] = {"a", "b"};
    const uint32_t n_parts = n_elements / 4;
    for (uint32_t part = 0; part < n_parts; ++part) {
      own += "var " + parts[part] + " = vec4f(0.0);\nif (slice == 0u && d < kWords) {\nlet i = 2u * dh + d * kElements + " +
             number(4 * part) + ";\n" + parts[part] + " = vec4f(heads[i], heads[i + 1u], heads[i + 2u], heads[i + 3u]);\n}\n";
      shrink += parts[part] + " *= shrink;\n";
    }
    for (uint32_t m = 0; m < n_q; ++m) {
      for (uint32_t part = 0; part < n_parts; ++part) {
        const std::string name = index("q", m) + parts[part];
        q += "var " + name + " = vec4f(0.0);\nif (lane + " + number(8 * m) + " < kWords) {\nlet i = (lane + " + number(8 * m) +
             ") * kElements + " + number(4 * part) + ";\n" + name + " = vec4f(heads[i], heads[i + 1u], heads[i + 2u], heads[i + 3u]);\n}\n";
      }
    }
    for (uint32_t i = 0; i < 8; ++i) {
      const std::string key = index("at", i);
      scores += "let " + key + " = min(origin + " + number(32 * i) + ", last) * row + column;\n";
      for (uint32_t m = 0; m < n_q; ++m) {
        scores +=
            "let " + index("k", i) + "_" + std::to_string(m) + " = keys[" + key + " + min(lane + " + number(8 * m) + ", kWords - 1u)];\n";
      }
    }
    // Loads of values v0 … v7 from j on, and what they add.
    auto load_values = [&](const std::string& j) {
      std::string text;
      for (uint32_t i = 0; i < 8; ++i) {
        text += "let " + index("r", i) + " = " + j + " + " + number(i) + " * kSlices;\n";
        text += "let " + index("v", i) + " = values[min(j0 + " + index("r", i) + ", last) * row + at];\n";
      }
      return text;
    };
    std::string add_values;
    for (uint32_t i = 0; i < 8; ++i) {
      const std::string w = index("w", i);
      add_values += "let " + w + " = select(0.0, weight[min(" + index("r", i) + ", 255u)], " + index("r", i) + " < n);\n";
      add_values += "a += " + w + " * low(" + index("v", i) + ");\n";
      if (n_parts == 2) add_values += "b += " + w + " * high(" + index("v", i) + ");\n";
      add_values += "total += " + w + ";\n";
    }
    scores += load_values("slice");
    for (uint32_t i = 0; i < 8; ++i) {
      scores += "sum_put(slot + " + number(32 * i) + ", lane, ";
      for (uint32_t m = 0; m < n_q; ++m) {
        const std::string k = index("k", i) + "_" + std::to_string(m);
        scores += (m ? " + dot(" : "dot(") + index("q", m) + "a, low(" + k + "))";
        if (n_parts == 2) scores += " + dot(" + index("q", m) + "b, high(" + k + "))";
      }
      scores += ");\n";
    }
    values = add_values;
    const std::string more_values = load_values("j") + add_values;
    std::string own_sum, own_all;
    for (uint32_t i = 1; i < 16; ++i) own_sum += "s += part[l + " + number(16 * i) + "];\n";
    for (uint32_t i = 0; i < 16; ++i) own_all += "own += most[" + number(i) + "];\n";
    for (uint32_t i = 1; i < 16; ++i) most += "m = max(m, weight[l + " + number(16 * i) + "]);\n";
    for (uint32_t i = 0; i < 16; ++i) highest += "above = max(above, most[" + number(i) + "]);\n";
    for (uint32_t i = 0; i < n_elements; ++i) reduce += "sum_put(l, " + number(i) + ", " + parts[i / 4] + "." + "xyzw"[i % 4] + ");\n";

    GpuStep step;
    step.name = "attention_one";
    std::string helpers = wgsl("rows/main"), pack;
    std::vector<uint32_t> pack_words;
    pack_heads(y, dh, 7, helpers, pack, pack_words);
    uint32_t n_carried = 0;
    std::vector<uint32_t> carries;
    for (const int32_t x : {a.q, a.k, a.v}) {
      const bool lacks = carry_.second >= 0 && plan_.root(x) == carry_.second;
      const Carry& c = carry_.first;
      n_carried = std::max(n_carried, lacks ? c.n : 0);
      if (lacks) {
        carries.insert(carries.end(), {c.at, c.rows_before + first_column(x), c.n_blocks, 0});
      } else {
        carries.insert(carries.end(), {kGpuNone, 0, 1, 0});
      }
    }
    carry_ = {{}, -1};
    if (pack.empty()) helpers += wgsl("rows/hadamard");  // its memory serves here too
    helpers += wgsl("carry", {{"$CARRY", number(n_carried)}});
    step.text = wgsl("prelude") + wgsl("access") + helpers +
                wgsl("attention_one", {{"$DH", number(dh)},
                                       {"$WORDS", number(n_words)},
                                       {"$LANES", number(lanes)},
                                       {"$PAIR", halves ? "d % max(n, 1u)" : "d / 2u"},
                                       {"$SECOND", halves ? "d >= n" : "(d & 1u) == 1u"},
                                       {"$OTHER", halves ? "select(d + n, d - n, d >= n)" : "(d ^ 1u)"},
                                       {"$CACHE", wgsl(half_ ? "one_half" : "one_float")},
                                       {"$OWN", own},
                                       {"$Q", q},
                                       {"$SCORES", scores},
                                       {"$MOST", most},
                                       {"$HIGHEST", highest},
                                       {"$SHRINK", shrink},
                                       {"$VALUES", values},
                                       {"$MORE_VALUES", more_values},
                                       {"$KEY_SUM", own_sum},
                                       {"$KEY_ALL", own_all},
                                       {"$REDUCE", reduce},
                                       {"$PACK", pack.empty() ? "" : wgsl("attention_pack", {{"$STAGES", pack}})},
                                       {"$KEEP", std::string(kKeepLayout)}});
    step.params = {at(a.q),
                   at(a.k),
                   at(a.v),
                   at(y),
                   uint32_t(op.n_heads / op.n_kv_heads),
                   uint32_t(op.window),
                   uint32_t(op.n_kv_heads) * dh / (half_ ? 2 : 1),
                   bits(op.scale),
                   op.softcap > 0 ? bits(op.softcap) : 0,
                   a.rope ? at(a.table) : 0,
                   a.rope ? width(a.table) / 2 : 0,
                   a.norm ? bits(a.norm->eps) : 0,
                   vector(a.q_gain),
                   vector(a.k_gain),
                   a.norm ? bits(a.norm->offset) : 0,
                   0};
    step.params.insert(step.params.end(), carries.begin(), carries.end());
    step.params.insert(step.params.end(), pack_words.begin(), pack_words.end());
    step.kv_layer = op.layer;
    step.groups[0] = uint32_t(op.n_heads);
    push(std::move(step));
  }
  /// Heads of whole blocks are packed right away for the product behind: the calls, what they need, their parameters from P[first] on.
  void pack_heads(int32_t y, uint32_t dh, size_t first, std::string& helpers, std::string& calls, std::vector<uint32_t>& words) {
    const Packing p = packing_behind(y);
    if (p.stages.empty() || dh % p.block) return;
    for (const std::string& text : p.shared) helpers += text;
    for (size_t i = 0; i < p.stages.size(); ++i) {
      std::string text = p.stages[i].text;
      fill(text, {{"$A", "P[" + std::to_string(first + 2 * i) + "]"},
                  {"$B", "P[" + std::to_string(first + 1 + 2 * i) + "]"},
                  {"$N", std::to_string(i)}});
      helpers += text;
      calls += "stage" + std::to_string(i) + "(t, l, h * " + number(dh) + ", (h + 1u) * " + number(dh) + ");\n";
      words.insert(words.end(), p.words[i].begin(), p.words[i].end());
    }
    packed_node_ = next_;
  }
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
  const Node* next_ = nullptr;                  // after it
  const Node* packed_node_ = nullptr;           // a product whose input lies packed already
  std::pair<Carry, int32_t> carry_ = {{}, -1};  // of a product whose readers, the next step, add it
  struct {
    const Node* product = nullptr;       // whose input is a norm that is not divided yet
    uint32_t n = 0, share = 0, eps = 0;  // sums of squares; 1/D and eps as bits
  } normed_;
  std::pair<size_t, size_t> inside_ = {};  // nodes that the product being lowered makes itself
  Columns::Register inside_result_ = 0;
  bool is_odd_ = false;
  uint32_t carry_room_ = 0;  // words between the two places of what rows lack
  size_t index_ = 0;         // of the node being lowered
  uint32_t packed_at_, carry_at_, squares_at_, angles_at_;
  uint64_t packed_words_ = 0, carry_words_ = 0, squares_words_ = 0, angles_words_ = 0;
};

}  // namespace

Result<GpuLowered> lower_to_gpu(const Plan& plan, GpuWeights& weights, bool half) {
  Lowering first(plan, half, {}, nullptr, nullptr);
  SB_TRY(const GpuLowered sketch, first.run());
  const ArenaLayout layout = plan_arena(plan, &first.times());
  Lowering second(plan, half, first.scratch(), &weights, &layout);
  SB_TRY(GpuLowered lowered, second.run());
  return lowered;
}

std::vector<uint64_t> gpu_texts(const Plan& plan, bool half) {
  const Result<GpuLowered> lowered = Lowering(plan, half, {}, nullptr, nullptr).run();
  std::vector<uint64_t> hashes;
  if (!lowered) return hashes;
  for (const GpuStep& step : lowered->steps) {
    uint64_t h = 0xcbf29ce484222325;  // FNV-1a
    for (char c : step.text) h = (h ^ uint8_t(c)) * 0x100000001b3;
    hashes.push_back(h);
  }
  return hashes;
}

uint64_t gpu_arena_words(const Plan& plan) {
  Lowering first(plan, true, {}, nullptr, nullptr);
  if (!first.run()) return 0;
  const ArenaLayout layout = plan_arena(plan, &first.times());
  return Lowering(plan, true, first.scratch(), nullptr, &layout).arena_words();
}

}  // namespace sb
