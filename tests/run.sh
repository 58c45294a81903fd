#!/usr/bin/env bash
# Every shelf of tests, or those named: lint unit ops golden gpu session quantize asan fuzz web. Called by ./dev test, which .ci/run calls.
# Two more only when named: neon (64-bit Arm, emulated: six minutes) and tsan (ThreadSanitizer).
# Each shelf ends with its own runner's summary; the last lines say which shelves failed.
set -uo pipefail
cd "$(dirname "$0")/.."
source <(sed -n '/^cache=/,/^# ---- Commands/p' dev)  # set-up and builds, as ./dev has them

shelves=("$@")
[ ${#shelves[@]} -gt 0 ] || shelves=(lint unit ops golden gpu session quantize asan fuzz web)
wants() { local s; for s in "${shelves[@]}"; do [ "$s" = "$1" ] && return 0; done; return 1; }
wants_any() { local s; for s in "$@"; do wants "$s" && return 0; done; return 1; }
failed=()
logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
# shelf NAME COMMAND…: runs it, remembers a failure and its last lines, says how long it took.
shelf() {
  local name="$1" begin=$SECONDS log="$logs/log"; shift
  say "== $name"
  if "$@" 2>&1 | tee "$log"; then
    say "== $name: passed in $((SECONDS - begin)) s"
  else
    say "== $name: FAILED after $((SECONDS - begin)) s"
    failed+=("$name"); { echo "-- the end of $name"; tail -n 12 "$log"; } >>"$logs/ends"
  fi
}

ctests() { ctest --test-dir "build/$1" --output-on-failure -j "$jobs" -L "^($2)\$" "${@:3}" --no-tests=error; }

# Each fuzzer runs half a minute over its kept corpus; new finds stay outside the tree.
fuzz_one() {
  local target="$1" corpus="tests/fuzz/corpus/${1%_fuzz}" work
  [ "$target" = chat_template_fuzz ] && corpus=tests/templates  # real templates are the best seeds
  work="$(mktemp -d)"
  "build/asan/core/$target" -max_total_time="${SUBBYTE_FUZZ_S:-30}" -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 -verbosity=0 -artifact_prefix="$work/" "$work" "$corpus" >"$work/log" 2>&1
  local status=$?
  if [ $status -eq 0 ]; then
    echo "$target: $(grep -o 'number_of_executed_units: [0-9]*' "$work/log" | grep -o '[0-9]*') runs, no finding"; rm -rf "$work"
  else
    tail -60 "$work/log"; ls "$work"; echo "$target: FOUND SOMETHING (kept in $work)"
  fi
  return $status
}
export -f fuzz_one
fuzzers() { printf '%s\n' gguf_fuzz safetensors_fuzz folder_index_fuzz tokenizer_fuzz chat_template_fuzz | xargs -P "$jobs" -I{} bash -c 'fuzz_one {}'; }

wasm_golden() { local folders=(); for f in tests/golden/*/golden.safetensors; do folders+=("$(dirname "$f")"); done; node web/harness/golden.mjs --backend node "${folders[@]}"; }
# Ours and Hugging Face's JavaScript tokenizers over the same varied lines. T5 and CLIP are left out: there the JavaScript one differs from
# the Rust one, which the goldens come from (ties of equal scores; a final sigma).
tokenizers() {
  local kinds=() kind
  for kind in smollm gpt2 llama3 qwen2 roberta llama2 bert; do kinds+=("tests/golden/tokenizers/$kind/tokenizer.json"); done
  node tests/tokenizers/compare.mjs --lines 2500 "$model" "${kinds[@]}"
}
sessions() { node tests/sessions/run.mjs --backend "$1" --model "$model"; }

wants_any unit ops golden gpu session quantize && { build_native all || failed+=("build release"); }
wants lint && shelf lint ./dev lint
wants unit && shelf unit ctests release unit
if wants unit; then
  need_npm && need_model || failed+=("set-up")
  shelf "tokenizers, against npm" tokenizers
  shelf "command line" tests/cli/run.sh build/release/apps/cli/subbyte "$model"
fi
wants ops && shelf ops ctests release ops
if wants_any golden session web; then build_web || failed+=("build web"); need_model || failed+=("model"); fi
if wants golden; then
  shelf "golden, native" ctests release golden
  shelf "golden, WebAssembly" wasm_golden
fi
# The native GPU device on Mesa's software one.
gpu_tests() { VK_ICD_FILENAMES="$(ls /usr/share/vulkan/icd.d/lvp_icd.*.json)" SUBBYTE_NEEDS_GPU=1 ctests release gpu; }
# The same, token by token: the likeliest next ones on the GPU and on the CPU.
agreement() {
  local family
  for family in llama gemma3 gpt2; do
    VK_ICD_FILENAMES="$(ls /usr/share/vulkan/icd.d/lvp_icd.*.json)" node tests/sessions/agreement.mjs "tests/golden/$family" || return 1
  done
}
if wants gpu; then
  need_packages $gpu_packages
  need_npm || failed+=("set-up")
  need_wgpu && shelf gpu gpu_tests && shelf "gpu, agreement with the CPU" agreement || failed+=("wgpu-native")
fi
if wants session; then
  need_packages $browser_packages
  need_model Gemma-3-270M || failed+=("model Gemma-3-270M")
  need_model || failed+=("model")
  for backend in native node chromium; do shelf "session, $backend" sessions "$backend"; done
fi
if wants quantize; then
  need_model || failed+=("model")
  shelf quantize tests/quantize/run.sh build/release/apps/cli/subbyte "$model" data/calibration.txt
fi
if wants web; then
  need_packages $all_browser_packages
  build_native subbyte || failed+=("build release")  # the page's default model is made by it
  # Two files at a time: browsers wait for pages while software GPUs compile.
  shelf "web engine" node --test --test-concurrency=2 web/engine/test/
  shelf "web page" node --test --test-concurrency=1 tests/web/
fi
if wants_any asan fuzz; then
  need_packages $build_packages
  if build asan all; then
    wants asan && shelf "asan and ubsan" ctests asan 'unit|ops|golden'
    wants fuzz && shelf fuzz fuzzers
  else
    failed+=("build asan")
  fi
fi
if wants neon; then
  need_packages $build_packages $neon_packages
  build neon base_test formats_test ops_test && shelf neon ctests neon 'unit|ops' || failed+=("build neon")
fi
if wants tsan; then
  need_packages $build_packages
  build tsan base_test runtime_test quantize_test ops_test && shelf tsan ctests tsan 'unit|ops' -R 'base|runtime|quantize|Ops' || failed+=("build tsan")
fi

if [ ${#failed[@]} -gt 0 ]; then
  [ -f "$logs/ends" ] && cat "$logs/ends"  # a shelf that failed an hour ago has scrolled away
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "All shelves passed: ${shelves[*]}"
