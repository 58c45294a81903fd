#!/usr/bin/env python3
"""clang-tidy over the C++ sources, each once: what the compiler sees at once is looked at again when it, what it includes, how it is compiled
or the checks changed, wherever the tree lies.

usage: tidy.py BUILD_FOLDER JOBS FILE…   (BUILD_FOLDER is built: ninja knows there what each file includes)
"""
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIDY = "clang-tidy-19"
CACHE = pathlib.Path(os.environ["SUBBYTE_CACHE"]) / "tidy"


@functools.lru_cache(maxsize=None)
def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def includes_of(build: pathlib.Path) -> dict:
    """object → the files that went into it, as ninja noted them."""
    objects, files = {}, []
    for line in subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("    "):
            files.append((build / line.strip()).resolve())
        elif ": #deps" in line:
            files = objects.setdefault(line.split(": #deps")[0], [])
    return objects


@functools.lru_cache(maxsize=None)
def sources_of(unit: pathlib.Path) -> list:
    """The sources that a unit of the build compiles together (CMake's unity files include them), or the one that it is."""
    if unit.parent.name != "Unity":
        return [unit]
    return [pathlib.Path(name).resolve() for name in re.findall(r'^#include "(.*)"$', unit.read_text(), re.MULTILINE)]


def own_checks(source: pathlib.Path) -> list:
    """What a folder's own .clang-tidy adds to the root's, which alone is found from a unity file."""
    file = source.parent / ".clang-tidy"
    return re.findall(r"^Checks: (.*)$", file.read_text(), re.MULTILINE) if file.exists() else []


def main() -> int:
    build, jobs, names = ROOT / sys.argv[1], int(sys.argv[2]), {ROOT / name for name in sys.argv[3:]}
    includes = includes_of(build)
    version = subprocess.run([TIDY, "--version"], capture_output=True, text=True, check=True).stdout
    checks = [version] + [digest(f) for f in sorted([ROOT / ".clang-tidy", *ROOT.glob("core/**/.clang-tidy")])]
    CACHE.mkdir(parents=True, exist_ok=True)
    commands, unseen = {}, set(names)  # by unit: kernels are compiled once for each instruction set, and looked at once
    for entry in json.loads((build / "compile_commands.json").read_text()):
        unit = pathlib.Path(entry["file"]).resolve()
        if names.intersection(sources_of(unit)):
            commands[unit] = entry["command"]
            unseen.difference_update(sources_of(unit))
    if unseen:
        print("not in this build:", *sorted(map(str, unseen)))

    def look(unit: pathlib.Path) -> bool:
        command = commands[unit]
        words = shlex.split(command)
        seen = [f"{f.name} {digest(f)}" for f in sorted(includes[words[words.index("-o") + 1]])]
        key = hashlib.sha256("\n".join([*checks, command.replace(str(ROOT), "."), *seen]).encode()).hexdigest()
        if (CACHE / key).exists():
            return True
        more = [f"--checks={c}" for c in own_checks(sources_of(unit)[0])] if unit.parent.name == "Unity" else []
        run = subprocess.run([TIDY, "--quiet", *more, "-p", build, unit], capture_output=True, text=True)
        sys.stdout.write(run.stdout)
        if run.returncode == 0:
            (CACHE / key).touch()
        return run.returncode == 0

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(look, commands))
    print(f"clang-tidy: {sum(good)} of {len(good)} units ({len(names) - len(unseen)} files) are clean")
    return 0 if all(good) and not unseen else 1


if __name__ == "__main__":
    sys.exit(main())
