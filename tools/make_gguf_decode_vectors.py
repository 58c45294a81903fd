"""Writes tests/golden/gguf_decode.{bin,json}: random blocks of every GGUF type and what they decode to.

The oracle is PyPI's `gguf` package (gguf.quants.dequantize, numpy), which shares no code with ours. Needs: pip install gguf.
Usage: make_gguf_decode_vectors.py [FOLDER]   (default: tests/golden beside this repository's tools)
"""
import json
import pathlib
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# type: bytes from a block's start to its half-precision scales
TYPES = {
    "F32": (), "F16": (), "BF16": (),
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}
ELEMENTS = 1024


def blocks_of(name, halves, random):
    n_elements, n_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    n_blocks = ELEMENTS // n_elements
    if name == "F32":
        return random.normal(size=ELEMENTS).astype("<f4").view(np.uint8)
    if name == "F16":
        return random.normal(size=ELEMENTS).astype("<f2").view(np.uint8)
    if name == "BF16":
        return (random.normal(size=ELEMENTS).astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    blocks = random.integers(0, 256, size=(n_blocks, n_bytes), dtype=np.uint8)
    for at in halves:
        scales = random.normal(scale=0.02, size=n_blocks).astype("<f2")
        scales[0] = 6e-8  # the smallest subnormal half
        scales[1] = -0.0
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(n_blocks, 2)
    return blocks.reshape(-1)


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests" / "golden"
    random = np.random.default_rng(7)
    out, rows = bytearray(), []
    for name, halves in TYPES.items():
        blocks = blocks_of(name, halves, random)
        expected = dequantize(blocks, GGMLQuantizationType[name]).astype("<f4").reshape(-1)
        assert expected.size == ELEMENTS and np.isfinite(expected).all()
        rows.append({"dtype": name, "elements": ELEMENTS, "blocks_at": len(out), "expected_at": len(out) + blocks.size})
        out += blocks.tobytes() + expected.tobytes()
    (folder / "gguf_decode.bin").write_bytes(out)
    (folder / "gguf_decode.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
