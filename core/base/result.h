// Result<T>: a value, or an Error that the user caused and can read. What we cause ourselves is an SB_ASSERT.
#pragma once

#include <expected>
#include <initializer_list>
#include <utility>

#include "base/error.h"

namespace sb {

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> err(Code code, std::initializer_list<ErrorField> fields = {}) {
  return std::unexpected<Error>(Error(code, std::vector<ErrorField>(fields)));
}
inline std::unexpected<Error> err(Error error) { return std::unexpected<Error>(std::move(error)); }

/// Prints the failed condition and stops: for mistakes of ours, never for input.
[[noreturn]] void assert_failed(const char* condition, const char* file, int line);

}  // namespace sb

#define SB_ASSERT(condition) ((condition) ? (void)0 : ::sb::assert_failed(#condition, __FILE__, __LINE__))

#define SB_CONCAT_(a, b) a##b
#define SB_CONCAT(a, b) SB_CONCAT_(a, b)
/// SB_TRY(auto n, read_u64()): declares n with the value, or returns the error from the enclosing function.
#define SB_TRY(declaration, expression) SB_TRY_(SB_CONCAT(sb_result_, __LINE__), declaration, expression)
#define SB_TRY_(result, declaration, expression)                  \
  auto result = (expression);                                     \
  if (!result) return std::unexpected(std::move(result).error()); \
  declaration = std::move(*result)

/// SB_OK(check()): returns the error from the enclosing function, if there is one.
#define SB_OK(expression)                                                                                \
  do {                                                                                                   \
    if (auto sb_status = (expression); !sb_status) return std::unexpected(std::move(sb_status).error()); \
  } while (0)
