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

check "quantize, a base and its refinement" "$subbyte" quantize "$model" "$work/two" --refine --tokens 2048 --text "$text" --eval-windows 1 --json
cp "$work/out" "$work/log"
check "verify finds it whole" "$subbyte" verify "$work/two"
check "nothing half-written is left" test ! -e "$work/two.partial"
for shard in "$work"/two/*.safetensors; do check "$(basename "$shard") is at most 50 MB" test "$(stat -c %s "$shard")" -le 50000000; done
refuses "a target that exists is kept" kTargetExists "$subbyte" quantize "$model" "$work/two" --bits 2 --text "$text"
refuses "a budget below the minimum says the minimum" kBudgetTooSmall "$subbyte" quantize "$model" "$work/none" --bits mixed --bytes 1000000 --text "$text"
echo "short" >"$work/short"
refuses "a text too short is refused" kTextTooShort "$subbyte" quantize "$model" "$work/none" --bits 2 --text "$work/short"
refuses "a refinement of rows8 is refused" kOptionInvalid "$subbyte" quantize "$model" "$work/none" --bits rows8 --refine --text "$text"
refuses "and one of 3 bits" kOptionInvalid "$subbyte" quantize "$model" "$work/none" --bits 3 --refine --text "$text"
refuses "unknown bits are refused" kOptionInvalid "$subbyte" quantize "$model" "$work/none" --bits 5 --text "$text"
check "no refused target exists" test ! -e "$work/none" -a ! -e "$work/none.partial"

# A limit on the size of files stands for a full disk.
refuses "a full disk is a typed error" kWriteFailed bash -c "ulimit -f 2000; exec '$subbyte' quantize '$model' '$work/none' --bits 2 --tokens 512 --text '$text'"
check "and leaves nothing" test ! -e "$work/none" -a ! -e "$work/none.partial"

# A model of random weights: random_model FOLDER D F LAYERS. The roads that are long on the real model are the same on it.
random_model() {
  python3 - "$@" "$(dirname "$0")/../golden/tokenizers/llama2/tokenizer.json" <<'PY'
import json, pathlib, random, shutil, struct, sys
folder, (d, f, layers), tokenizer, v = pathlib.Path(sys.argv[1]), map(int, sys.argv[2:5]), sys.argv[5], 1200
folder.mkdir()
shutil.copy(tokenizer, folder / "tokenizer.json")
(folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": d, "intermediate_size": f, "vocab_size": v,
    "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "tie_word_embeddings": True}))
shapes = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
for i in range(layers):
    shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in {
        "self_attn.q_proj": (d, d), "self_attn.k_proj": (d // 2, d), "self_attn.v_proj": (d // 2, d), "self_attn.o_proj": (d, d),
        "mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f), "input_layernorm": (d,), "post_attention_layernorm": (d,)}.items()}
rng, head, data = random.Random(1), {}, b""
exponent = 15 - (d.bit_length() + 1) // 2  # of float16: numbers of about 1/sqrt(D)
sizes = bytes(exponent << 2 | b & 0x83 for b in range(256))  # sign and mantissa stay random
for name, shape in shapes.items():
    n = shape[0] * (shape[1] if len(shape) > 1 else 1)
    numbers = bytearray(rng.randbytes(2 * n) if len(shape) > 1 else struct.pack("<e", 1.0) * n)
    if len(shape) > 1: numbers[1::2] = numbers[1::2].translate(sizes)
    head[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + 2 * n]}
    data += numbers
text = json.dumps(head).encode()
(folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
PY
}

# Interrupted at about a third, gone on with, compared with a run in one piece.
random_model "$work/middle" 384 1024 8
mkdir "$work/once" "$work/parts"
quantise=("$subbyte" quantize "$work/middle" --bits 2 --tokens 4096 --text "$text" --eval-windows 0)
check "a run in one piece" "${quantise[@]}" "$work/once/model"
"${quantise[@]}" "$work/parts/model" 2>"$work/bar" & pid=$!
until grep -q "[3-9][0-9] %" "$work/bar" || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
refuses "another run to the same place is refused meanwhile" kTargetBusy "${quantise[@]}" "$work/parts/model"
kill -INT $pid; wait $pid
check "Ctrl-C says that there is a checkpoint" grep -q "(kInterrupted)" "$work/bar"
check "the bar says what is left" grep -q "s left" "$work/bar"
check "and there is" test -s "$work/parts/model.partial/checkpoint" -a ! -e "$work/parts/model"
refuses "it is not overwritten" kCheckpointThere "${quantise[@]}" "$work/parts/model"
refuses "nor gone on with by other options" kCheckpointForeign "${quantise[@]}" "$work/parts/model" --seed 1 --resume
check "it is resumed" "${quantise[@]}" "$work/parts/model" --resume
check "to the same bytes" diff -r "$work/once/model" "$work/parts/model"
check "and nothing else stays" test "$(ls "$work/parts")" = model
"${quantise[@]}" "$work/killed" 2>"$work/bar" & pid=$!
until grep -q "%" "$work/bar" || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
kill -KILL $pid; wait $pid 2>/dev/null
refuses "a killed run keeps nobody out" kTextTooShort "$subbyte" quantize "$model" "$work/killed" --bits 2 --text "$work/short"
check "and what it left is gone with the next one" test ! -e "$work/killed.partial" -a ! -e "$work/killed.partial.lock"
echo $$ >"$work/node.partial.lock"  # as the package in Node leaves it while it runs
refuses "a run in Node keeps others out" kTargetBusy "$subbyte" quantize "$model" "$work/node" --bits 2 --text "$work/short"
sleep 0 & wait $!; echo $! >"$work/node.partial.lock"
refuses "a dead one nobody" kTextTooShort "$subbyte" quantize "$model" "$work/node" --bits 2 --text "$work/short"
check "and its lock is gone" test ! -e "$work/node.partial.lock"
refuses "there is nothing to resume now" kCheckpointMissing "${quantise[@]}" "$work/none" --resume

"$subbyte" eval "$work/two" --against "$model" --text "$text" --windows 4 --json >"$work/full.json" 2>/dev/null
check "eval: all planes lose less than a tenth of a nat" python3 -c "import json; r=json.load(open('$work/full.json')); assert 0 < r['kl'] < 0.2 and r['n_tokens'] == 1020 and 4.0 < r['bpw_linears'] < 4.1, r"
"$subbyte" eval "$work/two" --planes base --against "$model" --text "$text" --windows 4 --json >"$work/base.json" 2>/dev/null
check "eval: the base alone loses more, at two bits" python3 -c "import json; r=json.load(open('$work/base.json')); assert $(field full.json "['kl']") < r['kl'] < 3 and r['bpw_linears'] < 2.1, r"
for planes in base full; do
  "$subbyte" run "$work/two" --planes $planes --raw --prompt "The capital of France is" --max-tokens 8 --json >"$work/$planes.run" 2>/dev/null
  check "run --planes $planes answers eight tokens" python3 -c "import json; r=[json.loads(l) for l in open('$work/$planes.run') if l.strip().startswith('{')][-1]; ids=r.get('ids') or r['done']['ids']; assert len(ids) == 8, r"
done
check "the two answers come from different weights" bash -c "! cmp -s '$work/base.run' '$work/full.run'"

# Tuning: a step of the real model takes a minute.
random_model "$work/tiny" 64 128 2
check "quantize --tune" "$subbyte" quantize "$work/tiny" "$work/tuned" --bits 2 --tune --tune-steps 2 --window 64 --tokens 2048 --text "$text" --json
check "verify finds the tuned folder whole" "$subbyte" verify "$work/tuned"
check "card and page say what tuning brought" python3 -c "
import json; t = json.load(open('$work/tuned/model-card.json'))['quantizer']['tuning']
assert 0 < t['kl_after'] <= t['kl_before'] and t['held_out_tokens'] > 0, t
assert '| tuned |' in open('$work/tuned/README.md').read()"
mkdir "$work/tuned-once" "$work/tuned-parts"
tune=("$subbyte" quantize "$work/tiny" --bits 2 --tune --tune-steps 12 --window 64 --tokens 2048 --text "$text" --eval-windows 0)
check "tuning in one piece" "${tune[@]}" "$work/tuned-once/model"
"${tune[@]}" "$work/tuned-parts/model" 2>"$work/bar" & pid=$!
until grep -q "^tune .* [3-9][0-9] %" "$work/bar" || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
kill -INT $pid; wait $pid
check "Ctrl-C while it tunes leaves a checkpoint" grep -q "(kInterrupted)" "$work/bar"
check "it is resumed there" "${tune[@]}" "$work/tuned-parts/model" --resume
cp "$work/out" "$work/log"
check "and not from the begin" bash -c "grep '^tune ' '$work/log' | head -1 | grep -q ' [0-9][0-9] %'"
check "to the same bytes" diff -r "$work/tuned-once/model" "$work/tuned-parts/model"
refuses "a base is not tuned" kOptionInvalid "$subbyte" quantize "$work/tiny" "$work/none" --bits 2 --tune --refine --text "$text"

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

# Formats by their names, of groups of several matrices too.
check "quantize to rows8 with a plain4 embedding" "$subbyte" quantize "$model" "$work/eight" --bits rows8 --embedding plain4 --tokens 1024 --text "$text" --eval-windows 1 --json
cp "$work/out" "$work/eight.log"
check "8.5 bits in the linears lose next to nothing" python3 -c "import json; r=json.loads(open('$work/eight.log').read().splitlines()[-1]); assert abs(r['bpw_linears'] - 8.5) < 1e-9 and r['evaluation']['kl'] < 0.2, r"
check "verify finds it whole, too" "$subbyte" verify "$work/eight"

# Folders of other quantisers: as they come, and quantised. A tokenizer of the 256 bytes for models of 256 ids.
for kind in gptq gptq_order awq bitnet; do
  cp -r tests/*/"$kind" "$work/$kind"
  python3 - "$work/$kind/tokenizer.json" <<'PY'
import json, sys
plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [b for b in range(256) if b not in plain]
vocab = {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
           "decoder": byte_level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}, open(sys.argv[1], "w"))
PY
  check "run $kind" "$subbyte" run "$work/$kind" --raw --prompt "Hello" --max-tokens 4 --json
  check "quantize $kind" "$subbyte" quantize "$work/$kind" "$work/$kind-made" --bits 4 --tokens 4096 --window 64 --text "$text" --eval-windows 1 --json
  cp "$work/out" "$work/$kind.log"
  check "verify what became of $kind" "$subbyte" verify "$work/$kind-made"
done
check "bitnet computes what its weights do" "$subbyte" golden tests/quantize/bitnet --isa scalar
check "a ternary model is kept without loss, a 4-bit one is coded" python3 -c "
import json
made, coded = (json.loads(open('$work/' + kind + '.log').read().splitlines()[-1]) for kind in ('bitnet', 'gptq'))
assert set(made['imported'].values()) == {'ternary'} and len(made['imported']) == 8 and made['bpw_linears'] < 2.6, made
assert 'imported' not in coded and coded['formats']['model.layers.0.mlp.down_proj.weight'] == 'coded4', coded"
sed -i 's/"bits": 4/"bits": 3/' "$work/awq/config.json"
refuses "AWQ of 3 bits is refused" kQuantisationUnsupported "$subbyte" run "$work/awq" --prompt x
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
