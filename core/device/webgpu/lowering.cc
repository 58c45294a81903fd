#include "device/webgpu/lowering.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "device/webgpu/chain.h"
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

/// Words of scratch that a program's steps share: inputs made ready for planes, one-bit products, angles.
struct Scratch {
  uint32_t packed = 0, products = 0, angles = 0;
};

/// Walks the nodes. The first walk has neither weights nor places, and finds out what is chained with what and how much scratch there is;
/// the second makes the steps.
class Lowering {
 public:
  Lowering(const Plan& plan, bool half, Scratch scratch, GpuWeights* weights, const ArenaLayout* layout)
      : plan_(plan), weights_(weights), half_(half) {
    packed_at_ = kGpuIdsAt + aligned(uint64_t(plan.n_tokens()));
    products_at_ = packed_at_ + scratch.packed;
    angles_at_ = products_at_ + scratch.products;
    place_values(angles_at_ + scratch.angles, layout);
  }

  Result<GpuLowered> run() {
    for (const Node& node : plan_.nodes()) {
      begin_ = -1;
      next_ = &node + 1 < plan_.nodes().data() + plan_.nodes().size() ? &node + 1 : nullptr;
      SB_OK(std::visit([&](const auto& op) { return lower(op, node); }, node.op));
      times_.begin.push_back(begin_ < 0 ? now() : begin_);
      times_.end.push_back(now());
    }
    close();
    return std::move(out_);
  }
  uint64_t arena_words() const { return out_.arena_words; }
  const NodeTimes& times() const { return times_; }
  Scratch scratch() const { return {aligned(packed_words_), aligned(products_words_), aligned(angles_words_)}; }

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
      step.text = wgsl("prelude") + how.text +
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
    p.stride = uint32_t(m.n_columns / 4 + 2 * ((m.n_columns + p.block - 1) / p.block));
    const Rotation turn = rotation(m.hadamard);
    p.shared = turn.shared;
    for (int set = 0; set < m.n_sets; ++set) {
      p.at[size_t(set)] = packed_at_ + uint32_t(set * rows(x)) * p.stride;
      p.stages.push_back(row("pack", {{"$HADAMARD", turn.call}, {"$BLOCK", number(p.block)}}, value(x).alias_of < 0 ? width(x) : 0));
      p.words.push_back({at(x), stride(x), p.at[size_t(set)], p.stride, width(x), uint32_t(m.n_columns), signs(m),
                         halves(m.sets[set].column_scale, m.n_columns)});
    }
    packed_words_ = std::max(packed_words_, uint64_t(m.n_sets * rows(x)) * p.stride);
    return p;
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
    for (size_t i = 0; i < packed.stages.size() && packed_node_ != &node; ++i) {
      stage(n_tokens, std::move(packed.stages[i]), packed.words[i], packed.shared);
    }
    uint32_t products[2], product_stride[2];
    uint64_t products_words = 0;
    for (int set = 0; set < m.n_sets; ++set) {
      products[set] = products_at_ + uint32_t(products_words);
      product_stride[set] = uint32_t((end - first) * m.sets[set].code.n_planes);
      products_words += uint64_t(n_tokens) * product_stride[set];
    }
    products_words_ = std::max(products_words_, products_words);
    close();
    SB_TRY(std::vector<Part> pieces, parts(w));
    for (int set = 0; set < m.n_sets; ++set) {
      for (const Part& part : pieces) {
        const int64_t from = std::max(first, part.first_row), to = std::min(end, part.first_row + part.n_rows);
        if (from >= to) continue;
        GpuStep step;
        step.name = "planes_few";
        step.text = wgsl("prelude") + wgsl("planes_few", {{"$PLANES", number(uint32_t(m.sets[set].code.n_planes))},
                                                          {"$PRODUCTS", products_text(m.sets[set].code)},
                                                          {"$BLOCK", number(packed.block)},
                                                          {"$KEEP", std::string(kKeepLayout)}});
        step.params = {packed.at[size_t(set)], packed.stride,
                       products[set],          product_stride[set],
                       uint32_t(to - from),    uint32_t(m.words_per_row()),
                       uint32_t(from - first), uint32_t(from - part.first_row)};
        step.weights[0] = part.buffer[set];
        set_groups(step, (to - from + 7) / 8, n_tokens);
        push(std::move(step));
      }
    }
    for (int set = 0; set < m.n_sets; ++set) {
      const PlaneCode& code = m.sets[set].code;
      stage(n_tokens, row("filter", {{"$SUM", sum_text(code)}, {"$PLANES", number(uint32_t(code.n_planes))}}, width(y)),
            {products[set], product_stride[set], at(y), stride(y), width(y), uint32_t(w.first_row - first), uint32_t(m.segment),
             set == 0 ? vector(node.inputs[2]) : kGpuNone, row_scales(m, set) + uint32_t(first), filter(code), uint32_t(set)});
    }
    return {};
  }

  /// Products of a row's planes, a component each: planes_few.wgsl.
  static std::string products_text(const PlaneCode& code) {
    std::string text;
    for (uint32_t p = 0; p < uint32_t(kMaxPlanes); ++p) {
      text += p ? ", " : "";
      text += p < uint32_t(code.n_planes) ? "products(W[row + " + number(p) + " * n_words + j], a, b)" : "0.0";
    }
    return text;
  }
  /// The taps of a filter, unrolled: rows/filter.wgsl.
  static std::string sum_text(const PlaneCode& code) {
    std::string text;
    for (uint32_t q = 0; q < uint32_t(code.n_taps); ++q) {
      const std::string row = "o" + std::to_string(q);
      text += "let " + row + " = z + select(o - " + number(q) + ", o + $B.z - " + number(q) + ", o < " + number(q) + ") * $PLANES;\n";
      for (uint32_t p = 0; p < uint32_t(code.n_planes); ++p) {
        text += "sum += vec_at($C.y + " + number(q * uint32_t(code.n_planes) + p) + ") * ld(" + row + " + " + number(p) + ");\n";
      }
    }
    return text;
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
    // Heads of whole blocks are packed right away for the product behind.
    std::string helpers = wgsl("rows/main"), pack;
    std::vector<uint32_t> pack_words;
    if (const Packing p = packing_behind(y); !p.stages.empty() && dh % p.block == 0) {
      for (const std::string& text : p.shared) helpers += text;
      for (size_t i = 0; i < p.stages.size(); ++i) {
        std::string text = p.stages[i].text;
        fill(text,
             {{"$A", "P[" + std::to_string(3 + 2 * i) + "]"}, {"$B", "P[" + std::to_string(4 + 2 * i) + "]"}, {"$N", std::to_string(i)}});
        helpers += text;
        pack += "stage" + std::to_string(i) + "(t, l);\n";
        pack_words.insert(pack_words.end(), p.words[i].begin(), p.words[i].end());
      }
      packed_node_ = next_;
    }
    GpuStep step;
    step.name = pack.empty() ? "attention" : "attention pack";
    step.text = wgsl("prelude") + helpers +
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
  int32_t begin_ = -1;                 // of the node being lowered
  const Node* next_ = nullptr;         // after it
  const Node* packed_node_ = nullptr;  // a product whose input lies packed already
  uint32_t packed_at_, products_at_, angles_at_;
  uint64_t packed_words_ = 0, products_words_ = 0, angles_words_ = 0;
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
