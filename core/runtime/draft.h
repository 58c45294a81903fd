// Prompt-lookup drafting (Saxena 2023, "Prompt Lookup Decoding"): what followed the last few tokens when they stood there before is a guess
// at what follows now. A guess costs nothing to make; the model checks several in one pass.
#pragma once

#include <cstdint>
#include <span>

namespace sb {

/// The tokens, at most n of them, that followed the newest earlier place where `ids` reads as it ends: three tokens alike, else two.
/// A part of `ids`; empty where there is no such place.
std::span<const int32_t> draft(std::span<const int32_t> ids, int64_t n);

}  // namespace sb
