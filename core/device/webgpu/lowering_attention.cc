// Attention: of many tokens from the cache, of one from the products of q, k and v on.
#include "device/webgpu/lowering_walk.h"

namespace sb {

std::optional<Lowering::OneAttention> Lowering::one_attention(size_t begin) const {
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

void Lowering::lower_one(const OneAttention& a) {
  close();
  const Node& node = plan_.nodes()[index_];
  const Attention& op = *a.op;
  const int32_t y = node.output;
  const auto dh = uint32_t(op.head_dim);
  const uint32_t n_elements = half_ ? 8 : 4, n_words = dh / n_elements, lanes = std::bit_ceil(n_words);
  std::string own, q, scores, shrink, reduce;
  const uint32_t n_q = (n_words + 7) / 8;  // vec4u a lane
  auto index = [](const std::string& name, uint32_t i) { return name + std::to_string(i); };
  const std::string parts[] = {"a", "b"};
  const uint32_t n_parts = n_elements / 4;
  // A variable of four elements of `heads` from `at` on, where `is_there`.
  auto heads4 = [&](const std::string& name, const std::string& is_there, const std::string& at, uint32_t part) {
    return "var " + name + " = vec4f(0.0);\nif (" + is_there + ") {\nlet i = " + at + " * kElements + " + number(4 * part) + ";\n" + name +
           " = vec4f(heads[i], heads[i + 1u], heads[i + 2u], heads[i + 3u]);\n}\n";
  };
  for (uint32_t part = 0; part < n_parts; ++part) {
    own += heads4(parts[part], "split == 0u && slice == 0u && d < kWords", "2u * dh + d", part);
    shrink += parts[part] + " *= shrink;\n";
  }
  for (uint32_t m = 0; m < n_q; ++m) {
    const std::string word = "lane + " + number(8 * m);
    for (uint32_t part = 0; part < n_parts; ++part) q += heads4(index("q", m) + parts[part], word + " < kWords", "(" + word + ")", part);
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
                                     {"$CACHE", wgsl(half_ ? "one_half" : "one_float")},
                                     {"$OWN", own},
                                     {"$Q", q},
                                     {"$SCORES", scores},
                                     {"$MOST", repeated(16, "m = max(m, weight[l + #u]);\n", 16, 1)},
                                     {"$HIGHEST", repeated(16, "above = max(above, most[#u]);\n")},
                                     {"$SHRINK", shrink},
                                     {"$VALUES", add_values},
                                     {"$MORE_VALUES", load_values("j") + add_values},
                                     {"$KEY_SUM", repeated(16, "s += part[l + #u];\n", 16, 1)},
                                     {"$KEY_ALL", repeated(16, "own += most[#u];\n")},
                                     {"$REDUCE", reduce},
                                     {"$PACK", pack.empty() ? "" : wgsl("attention_pack", {{"$STAGES", pack}})},
                                     {"$KEEP", std::string(kKeepLayout)}});
  fill_turns(step.text, a.rope ? a.rope->style : RopeStyle::kHalves);
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
                 splits_at_};
  step.params.insert(step.params.end(), carries.begin(), carries.end());
  step.params.insert(step.params.end(), pack_words.begin(), pack_words.end());
  step.kv_layer = op.layer;
  step.groups[0] = uint32_t(op.n_heads);
  step.is_split = true;
  push(std::move(step));

  splits_words_ = std::max(splits_words_, uint64_t(op.n_heads) * kMostSplits * (dh + 2));
  GpuStep merge;
  merge.name = "attention_merge";
  merge.params = {at(y), splits_at_, 0, 0};
  std::string merge_helpers = wgsl("rows/main"), merge_pack;
  pack_heads(y, dh, 1, merge_helpers, merge_pack, merge.params);
  merge.text = wgsl("prelude") + wgsl("access") + merge_helpers +
               wgsl("attention_merge", {{"$DH", number(dh)},
                                        {"$PACK", merge_pack.empty() ? "" : wgsl("attention_pack", {{"$STAGES", merge_pack}})},
                                        {"$KEEP", std::string(kKeepLayout)}});
  merge.groups[0] = uint32_t(op.n_heads);
  merge.merges = true;
  push(std::move(merge));
}

void Lowering::pack_heads(int32_t y, uint32_t dh, size_t first, std::string& helpers, std::string& calls, std::vector<uint32_t>& words) {
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
  packed_node_ = next_node();
}

Status Lowering::lower(const Attention& op, const Node& node) {
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

}  // namespace sb
