#!/usr/bin/env python3
"""Unicode's facts as C++ tables, out of Python's own unicodedata, at build time; nothing of it is committed.

usage: unicode_tables.py OUT_DIR        writes OUT_DIR/unicode_tables.h (read by core/input/unicode.cc only)
"""
import pathlib
import sys
import unicodedata as ud

LIMIT = 0x110000
BLOCK = 128
CATEGORIES = ["Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
              "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"]

# What unicodedata does not tell. Source: the Unicode Character Database (PropList Other_Alphabetic outside L, M, N;
# GraphemeBreakProperty Extend and Prepend outside M).
OTHER_ALPHABETIC = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]
GRAPHEME_EXTEND = [(0x200C, 0x200D), (0x0E33, 0x0E33), (0x0EB3, 0x0EB3), (0xFF9E, 0xFF9F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F)]
GRAPHEME_NOT_EXTEND = [(0x102B, 0x102C), (0x1038, 0x1038), (0x1062, 0x1064), (0x1067, 0x106D), (0x1083, 0x1083), (0x1087, 0x108C),
                       (0x108F, 0x108F), (0x109A, 0x109C), (0x1A61, 0x1A61), (0x1A63, 0x1A64), (0xAA7B, 0xAA7B), (0xAA7D, 0xAA7D),
                       (0x11720, 0x11721)]
GRAPHEME_PREPEND = [(0x0600, 0x0605), (0x06DD, 0x06DD), (0x070F, 0x070F), (0x0890, 0x0891), (0x08E2, 0x08E2), (0x0D4E, 0x0D4E),
                    (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x111C2, 0x111C3), (0x1193F, 0x1193F), (0x11941, 0x11941),
                    (0x11A3A, 0x11A3A), (0x11A84, 0x11A89), (0x11D46, 0x11D46)]
HANGUL = range(0xAC00, 0xD7A4)


def inside(cp, ranges):
    return any(a <= cp <= b for a, b in ranges)


def script(cp, name):
    """1 Han, 2 Hiragana, 3 Katakana; enough for the scripts that tokenizers' patterns name."""
    if name.startswith(("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "CJK RADICAL", "KANGXI RADICAL", "HANGZHOU NUMERAL")) or cp in (
            0x3005, 0x3007, 0x303B, 0x16FE2, 0x16FE3, 0x16FF0, 0x16FF1):
        return 1
    common = (0x3099, 0x309A, 0x309B, 0x309C, 0x30A0, 0x30FB, 0x30FC, 0xFF65, 0xFF70, 0xFF9E, 0xFF9F, 0x1F201, 0x1F202, 0x1F213)
    if ("HIRAGANA" in name or "HENTAIGANA" in name) and cp not in common:
        return 2
    if ("KATAKANA" in name or 0x3300 <= cp <= 0x3357) and cp not in common:
        return 3
    return 0


def array(kind, name, values):
    text = f"inline constexpr {kind} {name}[] = {{"
    line = ""
    for v in values:
        item = f"{v},"
        if len(line) + len(item) > 128:
            text += "\n" + line
            line = ""
        line += item
    return text + "\n" + line + "};\n"


def utf16(text):
    data = text.encode("utf-16-le")
    return [data[i] | data[i + 1] << 8 for i in range(0, len(data), 2)]


def tables():
    composing = {}          # (first, second) → composed
    canonical, compatible = {}, {}
    for cp in range(LIMIT):
        ch = chr(cp)
        if 0xD800 <= cp < 0xE000 or cp in HANGUL:
            continue
        nfd, nfkd = ud.normalize("NFD", ch), ud.normalize("NFKD", ch)
        if nfd != ch:
            canonical[cp] = nfd
            raw = ud.decomposition(ch).split()
            if len(raw) == 2 and ud.normalize("NFC", ch) == ch:
                composing[int(raw[0], 16), int(raw[1], 16)] = cp
        if nfkd != nfd:
            compatible[cp] = nfkd
    seconds = {b for _, b in composing}

    lower = {}
    for cp in range(LIMIT):
        if 0xD800 <= cp < 0xE000:
            continue
        low = chr(cp).lower()
        if low != chr(cp):
            lower[cp] = low

    props = []
    for cp in range(LIMIT):
        ch = chr(cp)
        category = ud.category(ch)
        gc = CATEGORIES.index(category)
        space = category in ("Zs", "Zl", "Zp") or 0x09 <= cp <= 0x0D or cp == 0x85
        word = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or inside(cp, OTHER_ALPHABETIC)
        if inside(cp, GRAPHEME_PREPEND):
            grapheme = 3
        elif inside(cp, GRAPHEME_EXTEND) or (category[0] == "M" and not inside(cp, GRAPHEME_NOT_EXTEND)):
            grapheme = 2
        elif category in ("Cc", "Cf", "Zl", "Zp"):
            grapheme = 1
        else:
            grapheme = 0
        composes = cp in seconds or 0x1161 <= cp <= 0x1175 or 0x11A8 <= cp <= 0x11C2 or (
            cp in canonical and ud.normalize("NFC", ch) != ch)
        props.append(gc | space << 5 | (cp in compatible) << 6 | (ud.combining(ch) != 0) << 7 | (cp in lower) << 8 | grapheme << 9
                     | word << 11 | composes << 12 | (cp in canonical or cp in HANGUL) << 13 | script(cp, ud.name(ch, "")) << 14)

    blocks, stage1 = {}, []
    for start in range(0, LIMIT, BLOCK):
        block = tuple(props[start:start + BLOCK])
        stage1.append(blocks.setdefault(block, len(blocks)))
    values = sorted(set(props))                    # few distinct words: stage 2 holds their numbers
    if len(values) > 256:
        sys.exit("more than 256 distinct properties")
    number = {v: i for i, v in enumerate(values)}

    text = "// Generated by tools/unicode_tables.py from Python's unicodedata. Do not edit.\n#pragma once\n#include <cstdint>\nnamespace sb::unicode {\n"
    text += f"inline constexpr char kUnicodeVersion[] = \"{ud.unidata_version}\";\n"
    text += "enum Category : uint8_t {" + ",".join("k" + c for c in CATEGORIES) + "};\n"
    text += array("uint16_t", "kProperties", values)
    text += array("uint16_t" if len(blocks) > 256 else "uint8_t", "kStage1", stage1)
    text += array("uint8_t", "kStage2", [number[v] for block in blocks for v in block])

    for name, table in (("Canonical", canonical), ("Compatible", compatible)):
        keys = sorted(table)
        pool, offsets = [], [0]
        for cp in keys:
            pool += utf16(table[cp])
            offsets.append(len(pool))
        text += array("uint32_t", f"k{name}Keys", keys) + array("uint16_t", f"k{name}Offsets", offsets)
        text += array("uint16_t", f"k{name}Pool", pool)

    pairs = sorted(composing)
    text += array("uint32_t", "kComposeFirst", [a for a, _ in pairs]) + array("uint32_t", "kComposeSecond", [b for _, b in pairs])
    text += array("uint32_t", "kComposed", [composing[p] for p in pairs])

    runs = []                                      # [start, end, class]
    for cp in range(LIMIT):
        ccc = ud.combining(chr(cp))
        if ccc and runs and runs[-1][1] == cp - 1 and runs[-1][2] == ccc:
            runs[-1][1] = cp
        elif ccc:
            runs.append([cp, cp, ccc])
    text += array("uint32_t", "kCombiningStart", [r[0] for r in runs]) + array("uint16_t", "kCombiningCount", [r[1] - r[0] + 1 for r in runs])
    text += array("uint8_t", "kCombiningClass", [r[2] for r in runs])

    runs, special = [], []                         # [start, end, step, difference]
    for cp in sorted(lower):
        if len(lower[cp]) != 1:
            special += [cp] + [ord(c) for c in (lower[cp] + "\0\0\0")[:3]]
            continue
        delta = ord(lower[cp]) - cp
        last = runs[-1] if runs else None
        if last and last[3] == delta and cp - last[1] <= 2 and (last[2] in (0, cp - last[1])):
            last[1], last[2] = cp, cp - last[1]
        else:
            runs.append([cp, cp, 0, delta])
    text += "struct LowerRun { uint32_t start, end; uint8_t step; int32_t difference; };\n"
    text += array("LowerRun", "kLowerRuns", [f"{{{a},{b},{max(s, 1)},{d}}}" for a, b, s, d in runs])
    text += array("uint32_t", "kLowerSpecial", special)
    return text + "}  // namespace sb::unicode\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1]) / "unicode_tables.h"
    out.parent.mkdir(parents=True, exist_ok=True)
    made = tables()
    if not out.exists() or out.read_text() != made:
        out.write_text(made)
