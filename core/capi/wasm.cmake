# Two WebAssembly modules of one core, reactors without WASI: subbyte.wasm answers; subbyte-quantizer.wasm can also quantise and evaluate,
# and is fetched only for that. What they export is exactly the C API's header (the first without sb_quantizer_* and sb_eval_*), what they
# import is of base/host.cc and device/webgpu/gpu.h (and, with threads, their memory); tools/check_wasm.mjs fails the build when that is no
# longer so.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_LIST_DIR}/subbyte.h ${CMAKE_CURRENT_LIST_DIR}/../base/host.cc ${CMAKE_CURRENT_LIST_DIR}/../device/webgpu/gpu.h)
file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/subbyte.h lines REGEX "^SB_API .*\\(")
set(exports "")
foreach(line ${lines})
  string(REGEX REPLACE "^SB_API .*(sb_[a-z0-9_]+)\\(.*" "\\1" name "${line}")
  list(APPEND exports ${name})
endforeach()
if(NOT SB_WASM MATCHES "threads")
  list(REMOVE_ITEM exports sb_worker_run)
endif()
set(imports "")
foreach(file base/host.cc device/webgpu/gpu.h)
  file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/../${file} lines REGEX "(import_name\\(\"|SB_GPU_IMPORT\\(gpu_)")
  foreach(line ${lines})
    string(REGEX REPLACE ".*(import_name\\(\"|SB_GPU_IMPORT\\()([a-z0-9_]+).*" "\\2" name "${line}")
    list(APPEND imports ${name})
  endforeach()
endforeach()
find_program(NODE node REQUIRED)

# sb_wasm_module(module file objects export…)
function(sb_wasm_module module file objects)
  string(MAKE_C_IDENTIFIER ${file} target)
  list(TRANSFORM ARGN PREPEND "-Wl,--export=" OUTPUT_VARIABLE export_flags)
  add_executable(${target} ${objects})
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME ${file} SUFFIX .wasm
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} LINK_DEPENDS ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/subbyte.h)
  target_link_libraries(${target} PRIVATE sb_capi sb_isa_${module})
  target_link_options(${target} PRIVATE
    -mexec-model=reactor -O3 ${export_flags}
    # First in memory, so that an overflow traps instead of overwriting data.
    -Wl,--stack-first -Wl,-z,stack-size=1048576
    -Wl,--gc-sections -Wl,--strip-all)
  if(SB_WASM MATCHES "threads")
    # --no-check-features: wasi-libc is built without atomics; its allocator is under our lock (base/host_malloc.h).
    # The host may give a smaller maximum where a page cannot reserve 4 GiB of addresses.
    target_link_options(${target} PRIVATE -Wl,--shared-memory -Wl,--import-memory -Wl,--max-memory=4294967296 -Wl,--no-check-features
      -Wl,--export=__stack_pointer -Wl,--export=__wasm_init_tls -Wl,--export=__tls_size -Wl,--export=__tls_align)
  endif()
  string(JOIN "," export_list ${ARGN})
  string(JOIN "," import_list ${imports})
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND ${NODE} ${CMAKE_SOURCE_DIR}/tools/check_wasm.mjs $<TARGET_FILE:${target}> ${export_list} ${import_list}
    VERBATIM)
  if(NOT file MATCHES "quantizer")
    add_custom_command(TARGET ${target} POST_BUILD
      COMMAND ${NODE} ${CMAKE_SOURCE_DIR}/tools/size_report.mjs $<TARGET_FILE:${target}>
              ${CMAKE_SOURCE_DIR}/web/engine/dist/index.js ${CMAKE_SOURCE_DIR}/web/engine/dist/worker.js
      VERBATIM)
  endif()
  add_dependencies(subbyte_wasm ${target})
endfunction()

set(quantizer_only "^sb_(quantizer|eval)_")
set(engine_exports ${exports})
list(FILTER engine_exports EXCLUDE REGEX ${quantizer_only})
add_custom_target(subbyte_wasm)
foreach(module ${SB_MODULES})
  sb_wasm_module(${module} subbyte-${module} "$<FILTER:$<TARGET_OBJECTS:sb_capi>,EXCLUDE,capi/quantize\\.cc>" ${engine_exports})
  sb_wasm_module(${module} subbyte-quantizer-${module} "$<TARGET_OBJECTS:sb_capi>" ${exports})
endforeach()
