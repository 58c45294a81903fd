#!/usr/bin/env bash
# The command line's road through quantising, on the real model: quantize → verify → inspect → eval → run with the base and with all planes →
# damage that must be found. run.sh SUBBYTE MODEL TEXT. Few calibration tokens: the road is tested here, quality in docs/quality.md.
set -uo pipefail
subbyte="$1" model="$2" text="$3"
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() {  # check NAME COMMAND…
  local name="$1"; shift
  if "$@" >"$work/out" 2>&1; then passed=$((passed + 1)); echo "pass $name"; else failed=$((failed + 1)); echo "FAIL $name"; tail -5 "$work/out"; fi
}
refuses() {  # refuses NAME CODE COMMAND…
  local name="$1" code="$2"; shift 2
  if ! "$@" >"$work/out" 2>&1 && grep -q "($code)" "$work/out"; then passed=$((passed + 1)); echo "pass $name"; else failed=$((failed + 1)); echo "FAIL $name (wanted $code)"; tail -5 "$work/out"; fi
}
field() { python3 -c "import json,sys; print(json.load(open('$work/$1'))$2)"; }

check "quantize, a base and its refinement" "$subbyte" quantize "$model" "$work/two" --bits 2 --refine --tokens 2048 --text "$text" --eval-windows 1 --json
cp "$work/out" "$work/log"
check "verify finds it whole" "$subbyte" verify "$work/two"
check "nothing half-written is left" test ! -e "$work/two.partial"
for shard in "$work"/two/*.safetensors; do check "$(basename "$shard") is at most 50 MB" test "$(stat -c %s "$shard")" -le 50000000; done
refuses "a target that exists is kept" kTargetExists "$subbyte" quantize "$model" "$work/two" --bits 2 --text "$text"
refuses "a budget below the minimum says the minimum" kBudgetTooSmall "$subbyte" quantize "$model" "$work/none" --bits mixed --bytes 1000000 --text "$text"
echo "short" >"$work/short"
refuses "a text too short is refused" kTextTooShort "$subbyte" quantize "$model" "$work/none" --bits 2 --text "$work/short"
refuses "unknown bits are refused" kOptionInvalid "$subbyte" quantize "$model" "$work/none" --bits 5 --text "$text"
check "no refused target exists" test ! -e "$work/none" -a ! -e "$work/none.partial"

"$subbyte" eval "$work/two" --against "$model" --text "$text" --windows 4 --json >"$work/full.json" 2>/dev/null
check "eval: all planes lose less than a tenth of a nat" python3 -c "import json; r=json.load(open('$work/full.json')); assert 0 < r['kl'] < 0.2 and r['n_tokens'] == 1020 and 4.0 < r['bpw_linears'] < 4.1, r"
for planes in base full; do
  "$subbyte" run "$work/two" --planes $planes --raw --prompt "The capital of France is" --max-tokens 8 --json >"$work/$planes.run" 2>/dev/null
  check "run --planes $planes answers eight tokens" python3 -c "import json; r=[json.loads(l) for l in open('$work/$planes.run') if l.strip().startswith('{')][-1]; ids=r.get('ids') or r['done']['ids']; assert len(ids) == 8, r"
done
check "the two answers come from different weights" bash -c "! cmp -s '$work/base.run' '$work/full.run'"

python3 - "$work/two" <<'PY'
import glob, sys
shard = sorted(glob.glob(sys.argv[1] + "/refine-*.safetensors"))[0]
with open(shard, "r+b") as f:
    f.seek(-1000, 2); byte = f.read(1); f.seek(-1000, 2); f.write(bytes([byte[0] ^ 1]))
PY
refuses "one flipped bit is found by verify" kHashMismatch "$subbyte" verify "$work/two"
refuses "and by a load of all planes" kHashMismatch "$subbyte" run "$work/two" --prompt x --max-tokens 1
check "and the base beside it still runs" "$subbyte" run "$work/two" --planes base --raw --prompt "Once" --max-tokens 2
truncate -s 1000000 "$work/two/base-00001.safetensors"
refuses "a cut shard is refused" kModelTruncated "$subbyte" run "$work/two" --planes base --prompt x --max-tokens 1
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
