// What libc++ and wasi-libc would do through stdio, and so through WASI, goes to the host here.
#ifdef __wasm__

#include <cstdio>
#include <string_view>

#include "base/host.h"

// The library formats these with vfprintf and a stderr; the text without its arguments is enough to find the place.
extern "C" [[noreturn]] void abort_message(const char* format, ...) { sb::host_fatal(std::string_view(format)); }

_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char* format, ...) { sb::host_fatal(std::string_view(format)); }
_LIBCPP_END_NAMESPACE_STD

// printf's formatter has one sentence for stderr ("long double is not supported", then abort), and with it all of stdio over WASI.
extern "C" char __stderr_FILE[256];  // where wasi-libc keeps it: never written, because fputs below ends the program
extern "C" char __stderr_FILE[256] = {};
extern "C" int fputs(const char* text, FILE*) { sb::host_fatal(text); }

// A thread ends here with its worker, and its memory with the module's: destructors of thread-locals would have nothing to do.
extern "C" int __cxa_thread_atexit(void (*)(void*), void*, void*) noexcept { return 0; }

// By its symbol, because the header's declaration asks for a thread-local one: see errno_wasm.h.
extern int sb_libc_errno __asm__("errno");
extern "C" int* sb_errno_location() { return &sb_libc_errno; }

#endif
