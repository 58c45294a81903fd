# subbyte.wasm: a reactor without WASI. What it exports is exactly the C API's header, what it imports exactly base/host.h (and, with
# threads, its memory); tools/check_wasm.mjs fails the build when that is no longer so.
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/subbyte.h lines REGEX "^SB_API .*\\(")
set(exports "")
foreach(line ${lines})
  string(REGEX REPLACE "^SB_API .*(sb_[a-z0-9_]+)\\(.*" "\\1" name "${line}")
  list(APPEND exports ${name})
endforeach()
if(NOT SB_WASM MATCHES "threads")
  list(REMOVE_ITEM exports sb_worker_run)
endif()
list(TRANSFORM exports PREPEND "-Wl,--export=" OUTPUT_VARIABLE export_flags)

add_executable(subbyte_wasm $<TARGET_OBJECTS:sb_capi>)
set_target_properties(subbyte_wasm PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME subbyte-${SB_WASM} SUFFIX .wasm
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/subbyte.h)
target_link_libraries(subbyte_wasm PRIVATE sb_capi)
target_link_options(subbyte_wasm PRIVATE
  -mexec-model=reactor -O3 ${export_flags}
  # First in memory, so that an overflow traps instead of overwriting data.
  -Wl,--stack-first -Wl,-z,stack-size=1048576
  -Wl,--gc-sections -Wl,--strip-all)
if(SB_WASM MATCHES "threads")
  # --no-check-features: wasi-libc is built without atomics; its allocator is under our lock (base/host_malloc.h).
  # The host may give a smaller maximum where a page cannot reserve 4 GiB of addresses.
  target_link_options(subbyte_wasm PRIVATE -Wl,--shared-memory -Wl,--import-memory -Wl,--max-memory=4294967296 -Wl,--no-check-features
    -Wl,--export=__stack_pointer -Wl,--export=__wasm_init_tls -Wl,--export=__tls_size -Wl,--export=__tls_align)
endif()

find_program(NODE node REQUIRED)
string(JOIN "," export_list ${exports})
add_custom_command(TARGET subbyte_wasm POST_BUILD
  COMMAND ${NODE} ${CMAKE_SOURCE_DIR}/tools/check_wasm.mjs $<TARGET_FILE:subbyte_wasm> ${export_list}
  COMMAND ${NODE} ${CMAKE_SOURCE_DIR}/tools/size_report.mjs $<TARGET_FILE:subbyte_wasm>
          ${CMAKE_SOURCE_DIR}/web/engine/dist/index.js ${CMAKE_SOURCE_DIR}/web/engine/dist/worker.js
  VERBATIM)
