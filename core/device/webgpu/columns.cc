#include "device/webgpu/columns.h"

#include <algorithm>

#include "device/webgpu/kernel_text.h"

namespace sb {
namespace {

std::string name_of(int x, char half) { return "v" + std::to_string(x) + half; }

}  // namespace

std::string Columns::param(uint32_t word) {
  const size_t i = params_.size();
  params_.push_back(word);
  return "P[" + std::to_string(first_param_ + i / 4) + "]." + "xyzw"[i % 4];
}

std::string Columns::place(uint32_t at, uint32_t stride) {
  const std::string first = param(at);
  return first + " + t * " + param(stride) + " + k";
}

void Columns::need(const std::string& text) {
  if (needed_.insert(text).second) helpers_ += text;
}

Columns::Register Columns::define(const std::string& first, const std::string& second) {
  const int x = n_registers_++;
  body_ += "let " + name_of(x, 'a') + " = " + first + ";\nlet " + name_of(x, 'b') + " = " + second + ";\n";
  return x;
}

Columns::Register Columns::load(uint32_t at, uint32_t stride, const Carry* carry) {
  const int x = n_registers_++;
  const std::string a = name_of(x, 'a'), b = name_of(x, 'b'), from = place(at, stride);
  body_ += "var " + a + " = vec4f(0.0);\nvar " + b + " = vec4f(0.0);\nif (k < kColumns) {\n";
  body_ += a + " = row4(" + from + ");\n" + b + " = row4(" + from + " + 4u);\n";
  if (carry) {
    // Rows that lack something are a block's first: eight columns hold all of them or none, as long as blocks begin at eights.
    SB_ASSERT(carry->rows_before % 8 == 0);
    need(wgsl("carry", {{"$CARRY", std::to_string(carry->n) + "u"}}));
    const std::string first = param(carry->at), step = param(carry->stride), rows = param(carry->rows_before),
                      blocks = param(carry->n_blocks), r = "k + " + rows;
    body_ += "if (((" + r + ") & 31u) == 0u) {\nlet at = carry_place(vec4u(" + first + " + t * " + step + ", " + rows + ", " + blocks +
             ", 0u), (" + r + ") >> 5u);\n" + a + " += row4(at);\n";
    if (carry->n > 4) body_ += b + " += row4(at + 4u);\n";
    body_ += "}\n";
  }
  body_ += "}\n";
  return x;
}

Columns::Register Columns::add(Register a, Register b) {
  return define(name_of(a, 'a') + " + " + name_of(b, 'a'), name_of(a, 'b') + " + " + name_of(b, 'b'));
}

Columns::Register Columns::activate(std::string_view act, Register x) {
  need(wgsl("rows/activations"));
  std::string halves[2];
  for (int half = 0; half < 2; ++half) {
    const std::string v = name_of(x, "ab"[half]);
    halves[half] = "vec4f(";
    for (int i = 0; i < 4; ++i) halves[half] += (i ? ", " : "") + std::string(act) + "(" + v + "." + "xyzw"[i] + ")";
    halves[half] += ")";
  }
  return define(halves[0], halves[1]);
}

Columns::Register Columns::glu(std::string_view act, Register gate, Register up) {
  const Register x = activate(act, gate);
  return define(name_of(x, 'a') + " * " + name_of(up, 'a'), name_of(x, 'b') + " * " + name_of(up, 'b'));
}

Columns::Register Columns::softcap(Register x, uint32_t cap) {
  need(wgsl("rows/activations"));
  const std::string c = "bitcast<f32>(" + param(cap) + ")";
  const Register scaled = define(name_of(x, 'a') + " / " + c, name_of(x, 'b') + " / " + c);
  const Register bent = activate("steady_tanh", scaled);
  return define(name_of(bent, 'a') + " * " + c, name_of(bent, 'b') + " * " + c);
}

Columns::Register Columns::norm(Register x, uint32_t g, uint32_t offset, uint32_t eps, uint32_t squares_at) {
  const std::string a = name_of(x, 'a'), b = name_of(x, 'b'), gain = param(g), more = "bitcast<f32>(" + param(offset) + ")";
  const std::string n = std::to_string(n_squares()) + "u";
  std::string divided;
  body_ += "part[l] = dot(" + a + ", " + a + ") + dot(" + b + ", " + b + ");\nworkgroupBarrier();\n";
  if (is_inside_) {
    body_ += "if (l < 16u) {\nvar sum = 0.0;\n";
    body_ += repeated(16, "sum += part[l + #u];\n", 16);
    body_ += "squares[l] = sum;\n}\nworkgroupBarrier();\nvar all = 0.0;\n";
    body_ += repeated(16, "all += squares[#u];\n");
    body_ += "let divided = 1.0 / sqrt(all / f32(kColumns) + bitcast<f32>(" + param(eps) + "));\n";
    divided = " * divided";
  } else {
    body_ += "if (l == 0u) {\nvar sum = 0.0;\nfor (var i = 0u; i < 64u; i++) { sum += part[i]; }\n";
    body_ += "st(" + param(squares_at) + " + t * " + n + " + group.x, sum);\n}\nworkgroupBarrier();\n";
  }
  body_ += "var g0 = vec4f(0.0);\nvar g1 = vec4f(0.0);\n";
  body_ += "if (k < kColumns) {\ng0 = vec4_at(" + gain + " + k) + " + more + ";\ng1 = vec4_at(" + gain + " + k + 4u) + " + more + ";\n}\n";
  return define(a + " * g0" + divided, b + " * g1" + divided);
}

void Columns::store(Register x, uint32_t at, uint32_t stride) {
  if (!stores_) return;
  const std::string to = place(at, stride);
  body_ += std::string("if (k < kColumns") + (is_inside_ ? " && block == 0u" : "") + ") {\nput4(" + to + ", " + name_of(x, 'a') +
           ");\nput4(" + to + " + 4u, " + name_of(x, 'b') + ");\n}\n";
}

void Columns::pack(Register x, uint32_t at, uint32_t stride, uint32_t n_columns, uint32_t signs, uint32_t scales,
                   const std::vector<std::string>& texts) {
  for (const std::string& text : texts) need(text);
  end_ = n_columns;
  const std::string first = param(at), step = param(stride), padded = param(n_columns), su = param(signs), c = param(scales);
  body_ += "e0 = " + name_of(x, 'a') + ";\ne1 = " + name_of(x, 'b') + ";\n";
  body_ += "pack_columns(" + first + " + t * " + step + ", " + padded + ", " + su + ", " + c + ", k, " + padded + ", l);\n";
}

GpuStep Columns::finish(std::string name) {
  SB_ASSERT(!is_inside_);
  const uint32_t n = std::max(width_, end_);
  std::string text = wgsl("prelude") + wgsl("access4") + wgsl("rows/main") + helpers_ +
                     wgsl("columns", {{"$COLUMNS", std::to_string(width_) + "u"}, {"$KEEP", std::string(kKeepLayout)}, {"$BODY", body_}});
  return {std::move(name), std::move(text), std::move(params_), {0, 0}, -1, {(n + kSpan - 1) / kSpan, uint32_t(n_tokens_), 1}};
}

}  // namespace sb
