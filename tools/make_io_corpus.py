"""Writes the seeds of the GGUF and safetensors fuzzers: tests/fuzz/corpus/{gguf,safetensors}/.

The GGUF files come from PyPI's `gguf` writer, so that core/io/gguf_test.cc also reads files that are not of our own making.
Needs: pip install gguf. Usage: make_io_corpus.py [FOLDER]   (default: tests/fuzz/corpus beside this repository's tools)
"""
import json
import pathlib
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize


def write_gguf(path, architecture, types, with_tokenizer, alignment=None):
    writer = GGUFWriter(path, architecture)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("general.languages", ["en", "de"])
    if with_tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list([b"<s>", b"</s>", b"a", b"b", "\u0120ab".encode()])
        writer.add_token_scores([0.0, 0.0, -1.0, -2.0, -3.0])
        writer.add_token_types([3, 3, 1, 1, 1])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_add_bos_token(True)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    random = np.random.default_rng(3)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    for name in types:
        kind = GGMLQuantizationType[name]
        values = random.normal(size=(2, 64)).astype(np.float32)
        if name == "Q4_K":  # the writer's package only decodes this one
            writer.add_tensor("q4_k.weight", np.zeros((1, 144), np.uint8), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name.lower()}.weight", quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def safetensors(entries, data):
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent / "tests" / "fuzz" / "corpus"
    gguf, plain = folder / "gguf", folder / "safetensors"
    gguf.mkdir(parents=True, exist_ok=True)
    plain.mkdir(parents=True, exist_ok=True)
    write_gguf(gguf / "tokenizer.gguf", "llama", ["F32", "F16"], True)
    write_gguf(gguf / "blocks.gguf", "qwen2", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "BF16"], False)
    write_gguf(gguf / "aligned.gguf", "gemma3", ["F32", "Q8_0"], False, alignment=128)
    (gguf / "version2.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 2, 0, 0))

    floats = {"norm": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    mixed = {
        "__metadata__": {"format": "pt"},
        "half": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
        "bfloat": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]},
        "ids": {"dtype": "I64", "shape": [2], "data_offsets": [16, 32]},
        "none": {"dtype": "F32", "shape": [0], "data_offsets": [32, 32]},
    }
    config = b'{"model_type": "llama", "hidden_size": 4, "eos_token_id": [1, 2], "chat_template": [{"name": "default", "template": "a"}]}'
    index = b'{"metadata": {}, "weight_map": {"norm": "model-1.safetensors"}}'
    one, two = safetensors(floats, bytes(24)), safetensors(mixed, bytes(32))
    (plain / "floats").write_bytes(one)
    (plain / "mixed").write_bytes(two)
    (plain / "folder").write_bytes(config + b"\n===\n" + two)
    (plain / "sharded").write_bytes(config + b"\n===\n" + one + b"\n===\n" + index)


if __name__ == "__main__":
    main()
