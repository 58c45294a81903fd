#include "device/webgpu/kernel_text.h"

#include "base/result.h"
#include "wgsl_kernels.h"

namespace sb {
namespace {

std::string_view find(std::string_view name) {
  for (const auto& [key, text] : kWgslKernels) {
    if (key == name) return text;
  }
  return {};
}

}  // namespace

void fill(std::string& text, WgslHoles holes) {
  for (const auto& [hole, filling] : holes) {
    for (size_t at = 0; (at = text.find(hole, at)) != std::string::npos; at += filling.size()) text.replace(at, hole.size(), filling);
  }
}

std::string wgsl(std::string_view name, WgslHoles holes) {
  std::string text(find(name));
  SB_ASSERT(!text.empty());
  fill(text, holes);
  return text;
}

std::string repeated(uint32_t n, std::string_view line, uint32_t step, uint32_t first) {
  std::string text;
  for (uint32_t i = first; i < n; ++i) {
    std::string one(line);
    fill(one, {{"#", std::to_string(i * step)}});
    text += one;
  }
  return text;
}

}  // namespace sb
