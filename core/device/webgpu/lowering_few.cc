// Few tokens: products of planes, and the ops between them that stay in registers.
#include "device/webgpu/lowering_walk.h"

namespace sb {

Lowering::Packing Lowering::packing(const Node& node, bool is_inside) {
  const PlaneMatrix& m = *value(node.inputs[1]).weight.planes;
  const int32_t x = node.inputs[0];
  Packing p;
  p.block = uint32_t(m.hadamard ? m.hadamard : 128);
  p.stride = uint32_t((m.n_columns / 4 + 2 * ((m.n_columns + p.block - 1) / p.block) + 3) / 4 * 4);
  const Rotation turn = rotation(m.hadamard);
  p.shared = turn.shared;
  p.shared.push_back(pack_text(m, p.block, turn.call));
  if (is_inside) {
    p.shared.push_back(wgsl("rows/packed_group", {{"$FOURS", number(p.stride / 4)}}));
    return p;
  }
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

std::string Lowering::pack_text(const PlaneMatrix& m, uint32_t block, const std::string& turn) {
  return wgsl("rows/pack_columns", {{"$HADAMARD", turn},
                                    {"$BLOCK", number(block)},
                                    {"$FOURS", number(2 * chunk_words(m))},
                                    {"$MOST", repeated(block / 8, "most = larger(most, part[lane0 + #u]);\n")},
                                    {"$WHOLE", repeated(block / 8, "whole += part[lane0 + #u];\n")}});
}

Status Lowering::few_planes(size_t begin) {
  const Node& node = plan_.nodes()[index_];
  const bool is_inside = begin < index_;
  const TensorView& w = value(node.inputs[1]).weight;
  const PlaneMatrix& m = *w.planes;
  const int32_t x = node.inputs[0], y = node.output;
  const int64_t n_tokens = rows(x);
  // Rows of whole segments: the filter goes around in them.
  const int64_t first = w.first_row / m.segment * m.segment;
  const int64_t end = std::min(m.n_rows, (w.first_row + w.shape[0] + m.segment - 1) / m.segment * m.segment);
  Packing packed = packing(node, is_inside);
  for (size_t i = 0; i < packed.stages.size() && packed_node_ != &node; ++i) {
    stage(n_tokens, std::move(packed.stages[i]), packed.words[i], packed.shared);
  }
  is_odd_ = !is_odd_;  // what an earlier product's rows lack may be read while this one runs
  Carry carry{carry_at_, uint32_t((end - first) / 32 * 8), uint32_t(w.first_row - first), uint32_t(m.segment / 32), 0};
  for (int set = 0; set < m.n_sets; ++set) carry.n = std::max(carry.n, uint32_t(m.sets[set].code.n_taps - 1));
  carry_words_ = std::max(carry_words_, uint64_t(n_tokens) * carry.stride);
  carry.at += is_odd_ ? (squares_at_ - carry_at_) / 2 : 0;
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
      if (is_inside) {
        inside = Columns::inside(width(x), 8, out_.steps.size() == n_steps);
        carry_ = before;
        const auto [input, names] = columns_of(*inside, begin, index_);
        step.name = names + " planes_few";
        inside->pack(input, 0, 0, uint32_t(m.n_columns), signs(m), halves(m.sets[set].column_scale, m.n_columns), packed.shared);
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
  if (takes_carry(index_ + 1, y, carry.rows_before)) {
    carry_ = {carry, y};
    return {};
  }
  stage(n_tokens, row("carry", {}, width(y)), {at(y), stride(y), width(y), carry.at, carry.stride, carry.rows_before, carry.n_blocks},
        {wgsl("carry", {{"$CARRY", number(carry.n)}})});
  return {};
}

std::string Lowering::products_text(const PlaneMatrix& m, const PlaneCode& code, uint32_t block, const Columns* inside) {
  const auto n_words = uint32_t(m.words_per_row());
  const uint32_t n = chunk_words(m);
  const auto P = uint32_t(code.n_planes);
  const uint32_t n_chunks = n_words / n;
  const bool is_ahead = n_chunks > 16;  // a lane has several: the next one's weights are asked for before this one's products
  std::string sums, loads, products, lanes;
  for (uint32_t r = 0; r < 2; ++r) {
    for (uint32_t p = 0; p < P; ++p) {
      const std::string id = std::to_string(r * P + p);
      sums += "var sum" + id + " = 0.0;\n";
      const std::string from = "W[row + " + number((r * P + p) * n_chunks) + " + ";
      loads += "var w" + id + " = " + (is_ahead ? "ahead" + id + ";\nahead" + id + " = " + from + "after];\n" : from + "c];\n");
      if (is_ahead) sums += "var ahead" + id + " = " + from + "lane];\n";
      lanes += "{\nlet i = pair * " + number(2 * P) + " + " + number(r * P + p) + ";\nlane_put(i * 16u + (lane ^ (i & 15u)), 2.0 * sum" +
               id + " - whole);\n}\n";
    }
  }
  if (is_ahead) loads = "let after = min(c + 16u, kChunks - 1u);\n" + loads;
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
        bits[i] += (j ? " + " : "") + ("dot4I8Packed(" + one + " & " + kMasks[i] + ", " + a + "." + "xyzw"[i] + ")") + " + dot4I8Packed((" +
                   one + " >> 4u) & " + kMasks[i] + ", " + b + "." + "xyzw"[i] + ")";
      }
    }
    products += "sum" + std::to_string(id) + " += scale * f32((" + bits[0] + ") + ((" + bits[1] + ") >> 1u) + ((" + bits[2] +
                ") >> 2u) + ((" + bits[3] + ") >> 3u));\n";
  }
  const std::string reduce = repeated(16, "sum += lane_at(i * 16u + (#u ^ (i & 15u)));\n");
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

std::string Lowering::filter_text(const PlaneCode& code) {
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

size_t Lowering::columns_run(size_t begin) const {
  const std::vector<Node>& nodes = plan_.nodes();
  size_t i = begin;
  for (; i < nodes.size() && is_columns_op(nodes[i].op); ++i) {
    const int32_t y = nodes[i].output;
    if (rows(y) > kFewTokens || width(y) != width(nodes[begin].output) || width(y) % 8 || value(y).alias_of >= 0) return 0;
    for (const int32_t in : nodes[i].inputs) {
      if (in < 0 || value(in).kind != ValueKind::kActivation) continue;
      if (width(in) != width(y) || stride(in) % 8 || first_column(in) % 8) return 0;
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

bool Lowering::takes_carry(size_t begin, int32_t y, uint32_t rows_before) const {
  size_t end = columns_run(begin);
  if (end && rows_before % 8) return false;  // runs of columns take it by eights
  if (const auto heads = one_attention(begin)) end = heads->end;
  int n = 0;
  for (size_t i = begin; i < end; ++i) {
    for (const int32_t in : plan_.nodes()[i].inputs) n += in >= 0 && plan_.root(in) == y;
  }
  return n > 0 && n == uses(y);
}

std::pair<Columns::Register, std::string> Lowering::columns_of(Columns& columns, size_t begin, size_t end) {
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
  return {registers[product.inputs[0]], name};
}

Status Lowering::lower_columns(size_t begin, size_t end) {
  close();
  const std::vector<Node>& nodes = plan_.nodes();
  const Node& product = nodes[end];
  Columns columns(width(nodes[begin].output), rows(nodes[begin].output));
  const auto [input, names] = columns_of(columns, begin, end);
  carry_ = {{}, -1};
  const Packing packed = packing(product);
  const PlaneMatrix& m = *value(product.inputs[1]).weight.planes;
  for (int set = 0; set < m.n_sets; ++set) {
    columns.pack(input, packed.at[size_t(set)], packed.stride, uint32_t(m.n_columns), signs(m),
                 halves(m.sets[set].column_scale, m.n_columns), packed.shared);
  }
  packed_node_ = &product;
  push(columns.finish(names + " pack"));
  return {};
}

}  // namespace sb
