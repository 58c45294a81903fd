#include "base/host.h"

#include <cstdint>
#include <cstdlib>

#ifdef __wasm__

extern "C" {
__attribute__((import_module("sb"), import_name("now_ms"))) double sb_import_now_ms();
__attribute__((import_module("sb"), import_name("log"))) void sb_import_log(int32_t level, const char* text, uint32_t n_bytes);
__attribute__((import_module("sb"), import_name("fatal"))) void sb_import_fatal(const char* text, uint32_t n_bytes);
}

namespace sb {
double host_now_ms() { return sb_import_now_ms(); }
void host_log(LogLevel level, std::string_view line) { sb_import_log(int32_t(level), line.data(), uint32_t(line.size())); }
void host_fatal(std::string_view text) {
  sb_import_fatal(text.data(), uint32_t(text.size()));
  __builtin_trap();
}
}  // namespace sb

#else

#include <chrono>
#include <cstdio>

namespace sb {
double host_now_ms() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
void host_log(LogLevel level, std::string_view line) {
  static const bool verbose = std::getenv("SUBBYTE_VERBOSE") != nullptr;
  if (level < LogLevel::kWarning && !verbose) return;
  std::fprintf(stderr, "subbyte: %.*s\n", int(line.size()), line.data());
}
void host_fatal(std::string_view text) {
  std::fprintf(stderr, "%.*s\n", int(text.size()), text.data());
  std::abort();
}
}  // namespace sb

#endif
