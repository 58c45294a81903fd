// WGSL texts by the name of their file under kernels/, and their holes filled.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace sb {

using WgslHoles = std::initializer_list<std::pair<std::string_view, std::string>>;

/// The text of kernels/<name>.wgsl, "" when there is none, with "$HOLE" replaced.
std::string wgsl(std::string_view name, WgslHoles holes = {});
void fill(std::string& text, WgslHoles holes);
/// `line` again and again, "#" being first · step, (first + 1) · step … up to (n − 1) · step: loops are unrolled in the text.
std::string repeated(uint32_t n, std::string_view line, uint32_t step = 1, uint32_t first = 0);

/// Stands in every entry, so that the automatic layout has every binding of the prelude.
inline constexpr std::string_view kKeepLayout = "if (step.n_tokens == kNone) { keep_layout(); }\n";

}  // namespace sb
