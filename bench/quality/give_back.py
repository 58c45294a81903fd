#!/usr/bin/env python3
"""Holds the order in which a folder gives its refinements back against others, by the KL that is left.

usage: give_back.py SUBBYTE FOLDER SOURCE --text FILE [--windows 4] [--threads N] [--shares .25 .5 .75]

A share of the refinement's bytes is given back by each order: the folder's own (`give_back` in its index), that one from its end, the first
layers first, the last layers first. A matrix whose refinement is gone is made by setting its refinement's row scales to zero in a copy, which
gives the same numbers. Prints a table.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile


def read_heads(folder: pathlib.Path, index: dict) -> dict[str, tuple[str, int, int]]:
    """Tensor → shard, begin and end of its bytes there; of the refinement's shards."""
    places = {}
    for shard in index["shards"]:
        if shard["set"] != "refine":
            continue
        with open(folder / shard["file"], "rb") as file:
            n = struct.unpack("<Q", file.read(8))[0]
            for name, entry in json.loads(file.read(n)).items():
                if name != "__metadata__":
                    begin, end = entry["data_offsets"]
                    places[name] = shard["file"], 8 + n + begin, 8 + n + end
    return places


def without(folder: pathlib.Path, index: dict, places: dict, gone: set[str], to: pathlib.Path) -> None:
    """A copy of the folder in which the refinements of `gone` add nothing."""
    shards = {shard["file"]: bytearray((folder / shard["file"]).read_bytes()) for shard in index["shards"] if shard["set"] == "refine"}
    for file in folder.iterdir():
        if file.name not in shards and file.name != "subbyte.index.json":
            os.symlink(file.resolve(), to / file.name)
    for matrix in gone:
        shard, begin, end = places[f"{matrix}.refine.sv"]
        shards[shard][begin:end] = bytes(end - begin)
    changed = json.loads(json.dumps({k: v for k, v in index.items() if k != "index_sha256"}))
    for component in changed["components"]:
        if component["set"] == "refine":
            begin, end = component["bytes"]
            component["sha256"] = hashlib.sha256(shards[component["shard"]][begin:end]).hexdigest()
    for name, content in shards.items():
        (to / name).write_bytes(content)
    text = json.dumps(changed, separators=(",", ":"))[:-1]  # the sum is of all before it
    (to / "subbyte.index.json").write_text(f'{text},"index_sha256":"{hashlib.sha256(text.encode()).hexdigest()}"}}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("subbyte", "folder", "source"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    a = parser.parse_args()
    index = json.loads((a.folder / "subbyte.index.json").read_text())
    places = read_heads(a.folder, index)
    own = index["give_back"]
    size = {m: sum(end - begin for name, (_, begin, end) in places.items() if name.startswith(f"{m}.refine.")) for m in own}
    by_layer = sorted(own, key=lambda m: int(re.search(r"\d+", m)[0]))
    orders = {"its own": own, "from its end": own[::-1], "first layers first": by_layer, "last layers first": by_layer[::-1]}

    def kl_without(gone: set[str]) -> dict:
        with tempfile.TemporaryDirectory() as to:
            without(a.folder, index, places, gone, pathlib.Path(to))
            command = [a.subbyte, "eval", to, "--against", a.source, "--text", a.text, "--windows", a.windows, "--threads", a.threads, "--json"]
            return json.loads(subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True).stdout)

    print("| order | given back | KL |\n| --- | --- | --- |")
    for name, order in [("nothing", []), ("all", own)]:
        figures = kl_without(set(order))
        print(f"| {name} | {len(order) and 100} % | {figures['kl']:.4f} ± {figures['kl_se']:.4f} |", flush=True)
    for share in a.shares:
        for name, order in orders.items():
            gone, n_bytes = set(), 0
            for matrix in order:
                if n_bytes + size[matrix] <= share * sum(size.values()):
                    gone.add(matrix)
                    n_bytes += size[matrix]
            figures = kl_without(gone)
            print(f"| {name} | {n_bytes / sum(size.values()):.0%} | {figures['kl']:.4f} ± {figures['kl_se']:.4f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
