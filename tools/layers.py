#!/usr/bin/env python3
"""Checks that includes only go down the stairs of core/folders.cmake, and that clients see nothing of the core but the C API.

usage: layers.py
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORE = ROOT / "core"
# Headers that a fused kernel's text needs from a folder it does not link: SIMD decoding is written once, in formats, over the one SIMD door.
GENERATED = {"error_codes.h", "option_tables.h", "architecture_tables.h", "unicode_tables.h", "wgsl_kernels.h"}


def stairs() -> dict:
    """folder → the folders it may include, itself and what it uses, however deep."""
    uses = {}
    for line in (CORE / "folders.cmake").read_text().splitlines():
        match = re.match(r"sb_folder\((\S+?)(?: USES ([^)]*))?\)", line)
        if match:
            uses[match[1]] = [f.replace("device_", "device/") for f in (match[2] or "").split()]
    allowed = {}
    for folder in uses:  # in order: what a folder uses stands above it
        allowed[folder] = {folder}.union(*(allowed[f] for f in uses[folder]))
    return allowed


def folder_of(path: str, folders) -> str:
    return max((f for f in folders if path.startswith(f + "/")), key=len, default="")


def main() -> int:
    allowed = stairs()
    wrong = []
    for source in sorted(CORE.rglob("*.[hc]*")):
        if source.suffix not in (".h", ".cc"):
            continue
        mine = folder_of(str(source.relative_to(CORE)), allowed)
        for number, line in enumerate(source.read_text().splitlines(), 1):
            match = re.match(r'#include "([^"]+)"', line)
            if not match or match[1] in GENERATED:
                continue
            theirs = folder_of(match[1], allowed)
            if not theirs or theirs not in allowed[mine]:
                wrong.append(f"{source.relative_to(ROOT)}:{number}: core/{mine} may not include {match[1]}")
    for source in sorted((ROOT / "apps").rglob("*.[hc]*")):
        for number, line in enumerate(source.read_text().splitlines(), 1):
            match = re.match(r'#include "([^"]+)"', line)
            if match and match[1] != "subbyte.h" and not (source.parent / match[1]).exists():
                wrong.append(f"{source.relative_to(ROOT)}:{number}: clients include subbyte.h only, not {match[1]}")
    print("\n".join(wrong) or f"layers: {len(allowed)} folders, no include goes up")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
