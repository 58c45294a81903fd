// A run of ops of which each needs its own columns only, as one dispatch that keeps them in registers (kernels/columns.wgsl).
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "device/webgpu/lowering.h"

namespace sb {

/// What the first rows of each block of 32 rows of a product of planes still lack, until somebody adds it (kernels/carry.wgsl).
struct Carry {
  uint32_t at = kGpuNone, stride = 0;  // words
  uint32_t rows_before = 0;            // row 0, counted from the first segment
  uint32_t n_blocks = 0;               // of a segment
  uint32_t n = 0;                      // rows of a block that lack something
};

class Columns {
 public:
  /// A value in registers.
  using Register = int;

  Columns(uint32_t width, int64_t n_tokens) : width_(width), n_tokens_(n_tokens) {}
  /// For the head of a product's kernel, with parameters from P[first_param] on; only one of a product's dispatches `stores`.
  static Columns inside(uint32_t width, size_t first_param, bool stores) {
    Columns c(width, 1);
    c.is_inside_ = true;
    c.stores_ = stores;
    c.first_param_ = first_param;
    return c;
  }

  Register load(uint32_t at, uint32_t stride, const Carry* carry);
  Register add(Register a, Register b);
  Register glu(std::string_view act, Register gate, Register up);
  Register activate(std::string_view act, Register x);
  Register softcap(Register x, uint32_t cap);
  /// x · (offset + g) without its division; the sums of squares go to `squares_at`, n_squares() of them a token. Inside a product: divided.
  Register norm(Register x, uint32_t g, uint32_t offset, uint32_t eps, uint32_t squares_at);
  void store(Register x, uint32_t at, uint32_t stride);
  /// Packs for a product whose input has n_columns with the padding; `texts` as rows/pack_columns.wgsl wants them.
  void pack(Register x, uint32_t at, uint32_t stride, uint32_t n_columns, uint32_t signs, uint32_t scales,
            const std::vector<std::string>& texts);
  GpuStep finish(std::string name);
  uint32_t width() const { return width_; }
  const std::string& body() const { return body_; }
  const std::string& helpers() const { return helpers_; }
  const std::vector<uint32_t>& params() const { return params_; }

  static constexpr uint32_t kSpan = 512;  // columns of a workgroup
  uint32_t n_squares() const { return (width_ + kSpan - 1) / kSpan; }

 private:
  std::string param(uint32_t word);
  std::string place(uint32_t at, uint32_t stride);
  Register define(const std::string& first, const std::string& second);
  void need(const std::string& text);

  uint32_t width_;
  int64_t n_tokens_;
  bool is_inside_ = false, stores_ = true;
  size_t first_param_ = 0;
  std::string body_, helpers_;
  std::set<std::string> needed_;
  std::vector<uint32_t> params_;
  int n_registers_ = 0;
  uint32_t end_ = 0;  // columns with the padding
};

}  // namespace sb
