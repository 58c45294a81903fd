#!/usr/bin/env bash
# The command line's measuring of its machine: kept, used, measured anew where it is damaged or of another machine. run.sh SUBBYTE MODEL.
set -uo pipefail
subbyte="$1" model="$2"
work="$(mktemp -d)"; trap 'rm -rf "$work"' EXIT
export SUBBYTE_CACHE="$work/cache"
file="$SUBBYTE_CACHE/tuning.json"
passed=0 failed=0
check() {  # check NAME COMMAND…
  local name="$1"; shift
  if "$@" >"$work/out" 2>&1; then passed=$((passed + 1)); echo "pass $name"; else failed=$((failed + 1)); echo "FAIL $name"; tail -5 "$work/out"; fi
}
answer() { "$subbyte" run "$model" --device cpu --prompt Hi --raw --max-tokens 3 --json "$@" >"$work/answer" 2>"$work/told"; }
measures() { answer "$@" && grep -q "first start" "$work/told"; }
measures_not() { answer "$@" && ! grep -q "first start" "$work/told"; }
says() { python3 -c "import json; t = json.load(open('$file')); assert $1, t"; }
edit() { python3 -c "import json; t = json.load(open('$file')); $1; json.dump(t, open('$file', 'w'))"; }

check "a forced choice measures nothing" measures_not --threads 1
check "nor does it leave a file" test ! -e "$file"
check "the first start measures" measures
check "and keeps kernels and threads" says "t['isa'] != 'scalar' and t['threads'] >= 1 and len(t['measured']) >= 2"
check "every rate is one" says "all(m['gweights_per_s'] > 0 and m['gmac_per_s'] > 0 for m in t['measured'])"
check "the second does not" measures_not
edit "t['isa'] = 'scalar'"
check "what is kept is used: slowly, here" measures_not
"$subbyte" doctor --json >"$work/doctor"
check "doctor shows it" python3 -c "import json; d = json.load(open('$work/doctor')); assert d['tuning']['isa'] == 'scalar' and d['threads'] >= 1, d"
edit "t['machine']['cpu'] = 'another'"
check "another machine's is measured anew" measures
echo "{" >"$file"
check "and a damaged one" measures
edit "t['isa'] = 'none such'"
check "kernels that are not here are passed over" measures_not
check "doctor --reset forgets" "$subbyte" doctor --reset
check "all of it" test ! -e "$file"
check "doctor --tune measures" "$subbyte" doctor --tune
check "and keeps it" says "t['threads'] >= 1"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
