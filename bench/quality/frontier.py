#!/usr/bin/env python3
"""Ours and llama.cpp's points: which of ours are beaten, as a table, as JSON, as a picture.

usage: frontier.py ROWS.jsonl… [--text test] [--json POINTS.json] [--svg PICTURE.svg]

Checks that each of our points on our frontier, between 2 and 4.3 bits per weight of the whole model, has a lower KL than every llama.cpp
point that spends up to 30 % more bytes; and that both say the same perplexity of the reference, to half a per cent: the windows and the
arithmetic are then the same. Ends with 1, and says where, when that is not so or there is nothing to compare.
"""
import argparse
import html
import json
import math
import pathlib
import sys

import records

FROM_BITS, TO_BITS, MORE_BYTES = 2.0, 4.3, 1.3
SAME_PERPLEXITY = 0.005
# More than this share of the linear weights on the grid that the reference's own file stores them on: the row is shown, not counted.
MOST_ON_GRID = 0.1
PROMISES = (0.053, 0.032, 0.021)  # relative drops of the next token's accuracy: 2 bits, 3 bits, mixed


def point_of(row: dict) -> dict:
    return {"model": row["model"], "who": row["who"], "setting": row["setting"], "name": name_of(row), "text": row["text"],
            "weight_bytes": row["weight_bytes"], "bpw": round(row["bpw"], 3), "kl": row["kl"], "kl_se": row["kl_se"], "ppl": row["ppl"],
            "top1_drop": row.get("top1_drop"), "top1_drop_se": row.get("top1_drop_se"), "bpw_linears": row.get("bpw_linears"),
            "is_flat": row["setting"].startswith("flat:"), "is_flattered": row.get("on_grid", 0) > MOST_ON_GRID}


def name_of(row: dict) -> str:
    """A label: "2 bits, embedding 3", "Q2_K / Q4_K"."""
    setting = row["setting"]
    if row["who"] == "llama.cpp":
        return setting.removeprefix("flat:").replace("pure:", "").replace("+im", "").replace("/", " / ")
    words = setting.split()
    value = {w: words[i + 1] if i + 1 < len(words) else "" for i, w in enumerate(words) if w.startswith("--")}
    is_mixed = value.get("--bits") == "mixed" or "--allocation" in value
    out = f"mixed {row['bpw']:.2f}" if is_mixed else f"{value['--bits']} bits"
    if "--refine" in value:
        out = "2 bits, base" if value.get("--planes") == "base" else "2 + 2 bits"
    if "--tune" in value:
        out += ", tuned"
    if "--embedding" in value:
        out += f", embedding {value['--embedding'].removeprefix('coded')}"
    return out


def frontier_of(points: list[dict]) -> list[dict]:
    """Those that no point of fewer or the same bytes beats, by rising bytes."""
    out: list[dict] = []
    for p in sorted(points, key=lambda p: (p["weight_bytes"], p["kl"])):
        if not out or p["kl"] < out[-1]["kl"]:
            out.append(p)
    return out


def promise_lines(model: str, ours: list[dict]) -> list[str]:
    """The fewest bits a weight, embedding counted, at which each promise is met."""
    measured = sorted((p for p in ours if p["top1_drop"] is not None), key=lambda p: p["bpw"])
    out = []
    for promise in PROMISES:
        met = next((p for p in measured if p["top1_drop"] <= promise), None)
        said = "not met" if not met else (f"from {met['bpw']:.2f} bpw ({met['bpw_linears']:.2f} in the linears): {met['name']}, "
                                          f"{met['top1_drop']:.1%} ± {met['top1_drop_se']:.1%}")
        out.append(f"{model}: a drop of {promise:.1%} {said}")
    return out


def violations(ours: list[dict], theirs: list[dict]) -> list[tuple[dict, dict]]:
    tested = [p for p in frontier_of(ours) if FROM_BITS <= p["bpw"] <= TO_BITS]
    return [(p, q) for p in tested for q in theirs if q["weight_bytes"] <= MORE_BYTES * p["weight_bytes"] and q["kl"] <= p["kl"]]


# ---- The picture ----

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 420, 56, 16, 44, 46
STYLE = """
  text { font: 12px ui-sans-serif, "Segoe UI", "Liberation Sans", sans-serif; fill: #625f57 }
  .title { font-size: 15px; font-weight: 600; fill: #1d1c19 } .label { font-size: 10.5px }
  .grid { stroke: #bdb8aa; stroke-width: .5; opacity: .6 } .axis { stroke: #8b877c; stroke-width: 1 }
  .ours { fill: #0c6b52; stroke: #0c6b52 } .ours-line { fill: none; stroke: #0c6b52; stroke-width: 2 }
  text.ours { stroke: none; font-weight: 600 }
  .theirs { fill: #a33a1f; stroke: #a33a1f } text.theirs { stroke: none } .hollow { fill-opacity: 0; stroke-width: 1.4 }
  @media (prefers-color-scheme: dark) {
    text { fill: #a6a297 } .title { fill: #ebe8e0 } .grid { stroke: #55534c } .axis { stroke: #8b877c }
    .ours { fill: #7fd1b3; stroke: #7fd1b3 } .ours-line { stroke: #7fd1b3 } .theirs { fill: #f09a7e; stroke: #f09a7e }
  }
"""


def nice_step(span: float, n: int) -> float:
    raw = span / n
    power = 10 ** math.floor(math.log10(raw))
    return next(power * f for f in (1, 2, 5, 10) if power * f >= raw)


class Labels:
    """Puts each label where it covers no other and no mark: right, left, above, below; else it is left out (the JSON has the name)."""

    def __init__(self, bounds: tuple[float, float, float, float]):
        self.bounds, self.taken = bounds, []

    def block(self, x: float, y: float, r: float = 5) -> None:
        self.taken.append((x - r, y - r, x + r, y + r))

    def place(self, x: float, y: float, text: str) -> tuple[float, float, str] | None:
        width, height = 6.0 * len(text), 10
        for tx, ty, anchor in ((x + 8, y + 4, "start"), (x - 8, y + 4, "end"), (x + 6, y - 7, "start"), (x + 6, y + 14, "start"),
                               (x - 6, y - 7, "end"), (x - 6, y + 14, "end")):
            left = tx if anchor == "start" else tx - width
            box = (left, ty - height, left + width, ty + 2)
            inside = box[0] >= self.bounds[0] and box[2] <= self.bounds[2] and box[1] >= self.bounds[1] and box[3] <= self.bounds[3]
            if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self.taken):
                self.taken.append(box)
                return tx, ty, anchor
        return None


def panel(model: str, points: list[dict], at: float) -> list[str]:
    ours = [p for p in points if p["who"] == "subbyte"]
    theirs = [p for p in points if p["who"] == "llama.cpp"]
    mb = [p["weight_bytes"] / 1e6 for p in points]
    low, high = min(mb), max(mb)
    low, high = low - 0.06 * (high - low), high + 0.10 * (high - low)
    kl = [p["kl"] for p in points]
    bottom, top = math.log10(min(kl)) - 0.12, math.log10(max(kl)) + 0.12
    x_of = lambda v: at + LEFT + (v - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    y_of = lambda v: TOP + (top - math.log10(v)) / (top - bottom) * (HEIGHT - TOP - BOTTOM)
    right, floor = at + WIDTH - RIGHT, HEIGHT - BOTTOM
    out = [f'<text class="title" x="{at + LEFT}" y="22">{html.escape(model)}</text>']
    step = nice_step(high - low, 6)
    v = math.ceil(low / step) * step
    while v <= high:
        out.append(f'<line class="grid" x1="{x_of(v):.1f}" y1="{TOP}" x2="{x_of(v):.1f}" y2="{floor}"/>'
                   f'<text x="{x_of(v):.1f}" y="{floor + 16}" text-anchor="middle">{v:g}</text>')
        v += step
    for power in range(math.floor(bottom), math.ceil(top) + 1):
        for factor in (1, 2, 5):
            v = factor * 10.0**power
            if bottom <= math.log10(v) <= top:
                out.append(f'<line class="grid" x1="{at + LEFT}" y1="{y_of(v):.1f}" x2="{right}" y2="{y_of(v):.1f}"/>'
                           f'<text x="{at + LEFT - 6}" y="{y_of(v) + 4:.1f}" text-anchor="end">{v:g}</text>')
    out.append(f'<path class="axis" fill="none" d="M{at + LEFT},{TOP} V{floor} H{right}"/>')
    out.append(f'<text x="{(at + LEFT + right) / 2:.0f}" y="{floor + 34}" text-anchor="middle">MB of weights</text>'
               f'<text transform="translate({at + 13} {(TOP + floor) / 2:.0f}) rotate(-90)" text-anchor="middle">'
               f"KL to the reference, nats a token</text>")
    line = " ".join(f"{x_of(p['weight_bytes'] / 1e6):.1f},{y_of(p['kl']):.1f}" for p in frontier_of(ours))
    if line:
        out.append(f'<polyline class="ours-line" points="{line}"/>')
    labels = Labels((at + LEFT, TOP, right, floor))
    for p in points:
        labels.block(x_of(p["weight_bytes"] / 1e6), y_of(p["kl"]))
    for p in ours + theirs:
        x, y = x_of(p["weight_bytes"] / 1e6), y_of(p["kl"])
        name = p["name"] + ("*" if p["is_flattered"] else "")
        title = f"<title>{html.escape(name)}: KL {p['kl']:.3f}</title>"
        if p["who"] == "subbyte":
            out.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>')
        else:
            hollow = " hollow" if p["is_flat"] else ""
            out.append(f'<rect class="theirs{hollow}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7">'
                       f"{title}</rect>")
        if put := labels.place(x, y, name):
            who = "ours" if p["who"] == "subbyte" else "theirs"
            x, y, anchor = put
            out.append(f'<text class="label {who}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(name)}</text>')
    return out


def picture(points: list[dict]) -> str:
    models = list(dict.fromkeys(p["model"] for p in points))
    width, height = WIDTH * len(models), HEIGHT + 40
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
           f'aria-label="KL to the reference over bytes: subbyte below llama.cpp where it is better">', f"<style>{STYLE}</style>"]
    for i, model in enumerate(models):
        out += panel(model, [p for p in points if p["model"] == model], i * WIDTH)
    y = HEIGHT + 16
    out += [f'<circle class="ours" cx="{LEFT + 4}" cy="{y - 4}" r="4"/><text x="{LEFT + 14}" y="{y}">subbyte</text>',
            f'<rect class="theirs" x="{LEFT + 80}" y="{y - 8}" width="7" height="7"/>'
            f'<text x="{LEFT + 93}" y="{y}">llama.cpp, as its quantiser writes it</text>',
            f'<rect class="theirs hollow" x="{LEFT + 345}" y="{y - 8}" width="7" height="7"/><text x="{LEFT + 358}" y="{y}">'
            f'llama.cpp, every matrix forced into the type (linears / embedding)</text>']
    if any(p["is_flattered"] for p in points):
        out.append(f'<text x="{LEFT}" y="{y + 17}">'
                   f"* a type on whose own grid the reference lies: it loses less than on a model from training</text>")
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=pathlib.Path, nargs="+")
    parser.add_argument("--text", default="test")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--svg", type=pathlib.Path)
    a = parser.parse_args()
    rows = [r for file in a.rows for r in records.read(file) if r["text"] == a.text and r["setting"] != "source"
            and "--embedding source" not in r["setting"]]  # those show what the linears lose, and are no model to ship
    points = [point_of(r) for r in rows]
    if not points:
        sys.exit(f"frontier.py: no rows on {a.text}")
    n_wrong = 0
    for model in dict.fromkeys(p["model"] for p in points):
        mine = [p for p in points if p["model"] == model]
        ours = [p for p in mine if p["who"] == "subbyte"]
        theirs = [p for p in mine if p["who"] == "llama.cpp"]
        front = frontier_of(ours)
        print(f"\n{model}\n\n| | MB | bpw | KL | perplexity | |\n| --- | --- | --- | --- | --- | --- |")
        for p in sorted(mine, key=lambda p: p["weight_bytes"]):
            notes = ["on our frontier"] * (p in front) + ["flat"] * p["is_flat"] + ["on the grid of the reference"] * p["is_flattered"]
            error = "" if p["kl_se"] is None else f" ± {p['kl_se']:.3f}"
            print(f"| {p['who']} {p['name']} | {p['weight_bytes'] / 1e6:.1f} | {p['bpw']:.2f} | {p['kl']:.3f}{error} "
                  f"| {p['ppl']:.1f} | {', '.join(notes)} |")
        fair = [q for q in theirs if not q["is_flattered"]]
        for kind, against in (("", fair), (" (on the grid of the reference, not counted)", [q for q in theirs if q["is_flattered"]])):
            for p, q in violations(ours, against):
                print(f"beaten{kind}: {p['name']}, {p['weight_bytes'] / 1e6:.1f} MB, KL {p['kl']:.3f}, by {q['name']}, "
                      f"{q['weight_bytes'] / p['weight_bytes'] - 1:+.0%} bytes, KL {q['kl']:.3f}")
                n_wrong += not kind
        print("\n" + "\n".join(promise_lines(model, ours)))
        tested = [p for p in front if FROM_BITS <= p["bpw"] <= TO_BITS]
        print(f"\n{model}: {len(tested)} points of ours between {FROM_BITS} and {TO_BITS} bpw held against {len(fair)} of llama.cpp")
        n_wrong += not (tested and fair)
        references = {who: [r["ppl_ref"] for r in rows if r["model"] == model and r["who"] == who] for who in ("subbyte", "llama.cpp")}
        if all(references.values()):
            mine, peer = (sum(v) / len(v) for v in references.values())
            print(f"{model}: perplexity of the reference {mine:.4f} here, {peer:.4f} in llama.cpp: {mine / peer - 1:+.2%}")
            n_wrong += abs(mine / peer - 1) > SAME_PERPLEXITY
    if a.json:
        a.json.write_text(json.dumps(points, indent=1) + "\n")
    if a.svg:
        a.svg.write_text(picture(points))
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
