// What the core needs of the world outside: the time, a place for log lines, a way to die. Natively libc answers; in
// WebAssembly these are the module's only imports (namespace "sb"), served by web/engine/src/wasm.ts.
#pragma once

#include <string_view>

namespace sb {

/// Monotonic milliseconds since some fixed point.
double host_now_ms();

enum class LogLevel { kDebug, kInfo, kWarning, kError };
/// One line for developers; users read events and errors instead.
void host_log(LogLevel level, std::string_view line);

/// Prints `text` and ends the program (natively) or traps the module (WebAssembly).
[[noreturn]] void host_fatal(std::string_view text);

}  // namespace sb
