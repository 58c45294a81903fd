// Memory of what every token reads, weights and caches, in pages as large as the system has: with pages of 4 KB the processor looks up the
// place of each anew, token by token (docs/performance.md, "Large pages"). On Linux alone; elsewhere, in WebAssembly, and for what is
// small, nothing is given here, and the C allocator serves.
#pragma once

#include <cstddef>

#include "base/memory.h"

namespace sb {

/// Zeroed bytes, a multiple of 64, so aligned; null where there are none to be had here, and for other tags. Blocks of a tag lie one behind
/// the other in regions of addresses, which are not taken again before all of a region is given back. The memory itself goes back to the
/// system at once, part of a large page as soon as the system needs it.
void* take_lasting(Tag tag, size_t n_bytes);
/// False when `data` is none of these.
bool give_lasting(Tag tag, void* data, size_t n_bytes);

}  // namespace sb
