#!/usr/bin/env python3
"""Our own rows: quantises a model with a list of settings and evaluates each on held-out texts. A JSON line a setting and text.

usage: rows.py SUBBYTE MODEL OUT.jsonl --calibrate FILE… --text FILE… [--work DIR] [--threads N] [--windows 40] [--tokens N]
               [--seconds S] [SETTING…]

A SETTING is options of `subbyte quantize`: '--bits 2 --embedding coded3', '--bits mixed --bpw 3.25', '--bits 2 --refine'. Without any, the
list of the model in rows.json is taken. A folder with a refinement is evaluated with all its planes and with its base alone.
`--tokens` is added to settings that do not say it. What OUT has is not made again; a folder that --work has is not either, so a run that
was ended goes on where it was. Needs Python alone and a subbyte that runs here.
"""
import argparse
import hashlib
import json
import math
import pathlib
import re
import shlex
import subprocess
import sys
import time

import records

HERE = pathlib.Path(__file__).resolve().parent
N_WORDS = 13  # as many words in a row, found in both texts, are one text copied


def word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + N_WORDS]) for i in range(len(words) - N_WORDS + 1)}


def shared(held_out: pathlib.Path, calibration: list[pathlib.Path]) -> float:
    """The share of the held-out text's word runs that calibration has too."""
    known = set().union(*(word_runs(f.read_text(errors="replace")) for f in calibration))
    runs = word_runs(held_out.read_text(errors="replace"))
    return len(runs & known) / max(1, len(runs))


def run_json(command: list) -> tuple[dict, float]:
    """What the program prints as JSON, and the seconds it took. Raises RuntimeError with what it said."""
    began = time.monotonic()
    got = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if got.returncode:
        raise RuntimeError(" | ".join(got.stderr.strip().splitlines()[-3:]) or f"ended with {got.returncode}")
    return json.loads(got.stdout), time.monotonic() - began


def shown(command: list) -> str:
    """The command with paths cut to names."""
    return shlex.join(pathlib.Path(c).name if isinstance(c, pathlib.Path) else str(c) for c in command)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("subbyte", "model", "out"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--calibrate", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("rows-work"))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=24576)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no quantising and no evaluating after so many")
    parser.add_argument("settings", nargs="*")
    a = parser.parse_intermixed_args()
    began = time.monotonic()
    a.work.mkdir(parents=True, exist_ok=True)
    name = records.model_of(a.model)
    settings = a.settings or json.loads((HERE / "rows.json").read_text())[name]["subbyte"]
    program = a.subbyte.resolve()
    build = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    for text in a.text:
        if (share := shared(text, a.calibrate)) > 0.005:
            sys.exit(f"rows.py: {share:.1%} of {text} stands in the calibration text too; it would measure memory")

    store = records.Store(a.out)
    failed = 0
    for setting in settings:
        if "--tokens" not in setting:
            setting += f" --tokens {a.tokens}"
        calibration = "+".join(f.stem for f in a.calibrate)
        variants = [("", [])] + ([(" --planes base", ["--planes", "base"])] if "--refine" in setting else [])
        wanted = [(key, text, options) for text in a.text for suffix, options in variants
                  if not store.has(key := {"model": name, "who": "subbyte", "setting": setting + suffix, "text": text.stem,
                                           "n_windows": a.windows, "calibration": calibration})]
        if not wanted:
            continue
        folder = a.work / re.sub(r"[^\w.]+", "-", f"{name} {setting} {calibration} {build}")
        timing = folder.with_suffix(folder.suffix + ".json")
        try:
            if not (folder.exists() and timing.exists()):
                if time.monotonic() - began > a.seconds:
                    print(f"{setting}: not started, {a.seconds:.0f} s have passed", file=sys.stderr)
                    break
                command = [program, "quantize", a.model, folder, *shlex.split(setting), "--text", *a.calibrate, "--eval-windows", 0,
                           "--json", "--threads", a.threads]
                report, seconds = run_json(command)
                timing.write_text(json.dumps({"quantize_s": round(seconds, 1), "command": shown(command), "report": report}))
            made = json.loads(timing.read_text())
            for key, text, options in wanted:
                if time.monotonic() - began > a.seconds:
                    print(f"{setting} on {text.stem}: not started, {a.seconds:.0f} s have passed", file=sys.stderr)
                    break
                command = [program, "eval", folder, "--against", a.model, "--text", text, "--windows", a.windows, "--json",
                           "--threads", a.threads, *options]
                figures, seconds = run_json(command)
                figures.pop("n_windows", None)
                store.add({**key, "build": build, "threads": a.threads, "quantize_s": made["quantize_s"], "eval_s": round(seconds, 1),
                           **figures, "commands": [made["command"], shown(command)]})
                print(f"{name} {key['setting']} on {text.stem}: {figures['weight_bytes'] / 1e6:.1f} MB, {figures['bpw']:.3f} bpw, "
                      f"KL {figures['kl']:.4f} ± {figures['kl_se']:.4f}, top-1 drop {figures['top1_drop']:.1%}; "
                      f"quantised in {made['quantize_s']:.0f} s, evaluated in {seconds:.0f} s", file=sys.stderr, flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{setting}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
