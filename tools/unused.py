#!/usr/bin/env python3
"""Finds rows of data/ that nobody reads: errors no code returns, options no code asks for. usage: unused.py"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def text_of(*patterns: str) -> str:
    files = (f for pattern in patterns for f in ROOT.glob(pattern) if "node_modules" not in f.parts and "dist" not in f.parts and "generated" not in f.parts)
    return "\n".join(f.read_text(errors="replace") for f in files)


def main() -> int:
    code = text_of("core/**/*.cc", "core/**/*.h", "apps/**/*.cc", "web/**/*.ts")
    unused = [row["code"] for row in json.loads((ROOT / "data/errors.json").read_text()) if not re.search(rf"\b{row['code']}\b", code)]
    for group, rows in json.loads((ROOT / "data/options.json").read_text()).items():
        unused += [f"{group}.{row['name']}" for row in rows if f'"{row["name"]}"' not in code]
    print("\n".join(f"data: nobody reads {name}" for name in unused) or "data: every row is read")
    return 1 if unused else 0


if __name__ == "__main__":
    sys.exit(main())
