#!/usr/bin/env python3
"""clang-tidy over the C++ sources, each once: a file is looked at again when it, what it includes, how it is compiled or
the checks changed, wherever the tree lies.

usage: tidy.py BUILD_FOLDER JOBS FILE…   (BUILD_FOLDER is built: ninja knows there what each file includes)
"""
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
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


def main() -> int:
    build, jobs, names = ROOT / sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    commands = {pathlib.Path(c["file"]).resolve(): c for c in json.loads((build / "compile_commands.json").read_text())}
    includes = includes_of(build)
    version = subprocess.run([TIDY, "--version"], capture_output=True, text=True, check=True).stdout
    checks = [version] + [digest(f) for f in sorted([ROOT / ".clang-tidy", *ROOT.glob("core/**/.clang-tidy")])]
    CACHE.mkdir(parents=True, exist_ok=True)

    def look(name: str) -> bool:
        command = commands[ROOT / name]
        words = shlex.split(command["command"])
        seen = [f"{f.name} {digest(f)}" for f in sorted(includes[words[words.index("-o") + 1]]) if f.suffix != ".pch"]
        key = hashlib.sha256("\n".join([*checks, command["command"].replace(str(ROOT), "."), *seen]).encode()).hexdigest()
        if (CACHE / key).exists():
            return True
        run = subprocess.run([TIDY, "--quiet", "-p", build, ROOT / name], capture_output=True, text=True)
        sys.stdout.write(run.stdout)
        if run.returncode == 0:
            (CACHE / key).touch()
        return run.returncode == 0

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(look, names))
    print(f"clang-tidy: {sum(good)} of {len(good)} files are clean")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
