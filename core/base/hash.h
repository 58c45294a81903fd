// FNV-1a (Fowler, Noll, Vo 1991), 64 bits, over any run of whole numbers: for tables and names, not against attackers.
#pragma once

#include <cstdint>
#include <type_traits>

namespace sb {

inline constexpr uint64_t kHashBegin = 0xcbf29ce484222325;

/// Goes on from `h` with each element of `numbers`.
template <typename Numbers>
constexpr uint64_t hash_of(const Numbers& numbers, uint64_t h = kHashBegin) {
  for (const auto x : numbers) h = (h ^ std::make_unsigned_t<std::remove_const_t<decltype(x)>>(x)) * 0x100000001b3;
  return h;
}

}  // namespace sb
