// Included before everything in the WebAssembly build with threads (tools/wasm32.cmake): there the compiler wants errno per thread,
// but wasi-libc is built without threads and has one for all. Only nlohmann-json's number parser reads it, on the engine's thread.
#pragma once

#include <errno.h>

#ifdef __cplusplus
extern "C"
#endif
    int*
    sb_errno_location(void);

#undef errno
#define errno (*sb_errno_location())
