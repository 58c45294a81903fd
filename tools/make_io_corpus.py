"""Writes the seeds of the fuzzers of files: tests/fuzz/corpus/{gguf,safetensors,folder_index}/.

The GGUF files come from PyPI's `gguf` writer, so that core/io/gguf_test.cc also reads files that are not of our own making.
Needs: pip install gguf. Usage: make_io_corpus.py [FOLDER]   (default: tests/fuzz/corpus beside this repository's tools)
"""
import json
import pathlib
import struct
import sys

import make_foreign_goldens
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


def array(type_, shape, component):
    """A tensor of a quantised folder with bytes at random; scales and filters are small numbers."""
    random = np.random.default_rng(5)
    kinds = {"U32": np.uint32, "F16": np.float16, "F32": np.float32, "U8": np.uint8}
    n = int(np.prod(shape))
    values = random.integers(0, 40, n) if type_ in ("U32", "U8") else random.normal(size=n)
    return type_, shape, component, values.astype(kinds[type_]).tobytes()


def plane_set(name, n, k, planes, taps, component):
    return {
        name + ".planes": array("U32", [n, planes, k // 32], component),
        name + ".sv": array("F16", [n], component),
        name + ".c": array("F16", [k], component),
        name + ".filter": array("F32", [taps, planes], component),
    }


def in_pieces(tensors, name, n_pieces):
    """The tensors with one of them in pieces of whole rows, as shards hold what is too large for one."""
    out = {}
    for key, (type_, shape, component, values) in tensors.items():
        if key != name:
            out[key] = type_, shape, component, values
            continue
        ends = [shape[0] * i // n_pieces for i in range(n_pieces + 1)]
        row = len(values) // shape[0]
        for i, (begin, end) in enumerate(zip(ends, ends[1:])):
            out[f"{name}#{i}"] = type_, [end - begin, *shape[1:]], component, values[begin * row : end * row]
    return out


def quantised(sets, matrices, give_back, split=()):
    """A quantised folder as its fuzzer takes one: index and shards; the sums are dummies, which the fuzzer replaces."""
    no_sum = "0" * 64
    index = {"format": "subbyte-folder", "version": 1, "shards": [], "components": []}
    shards = []
    for number, (kind, tensors) in enumerate(sets):
        name, data, entries, ends = f"{kind}-{number + 1:05}.safetensors", b"", {}, {}
        for tensor, (type_, shape, component, values) in tensors.items():
            entries[tensor] = {"dtype": type_, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
            data += values
            ends[component] = len(data)
        shard = safetensors(entries, data)
        head = len(shard) - len(data)
        index["shards"].append({"file": name, "set": kind, "bytes": len(shard), "head_bytes": head, "head_sha256": no_sum})
        begin = head
        for component, end in ends.items():
            needs = [component.removesuffix(".refine")] if kind == "refine" else []
            entry = {"name": component, "set": kind, "shard": name, "bytes": [begin, head + end], "sha256": no_sum, "needs": needs}
            index["components"].append(entry)
            begin = head + end
        shards.append(shard)
    index["matrices"] = matrices
    index["give_back"] = give_back
    if split:
        index["split"] = [{"name": name, "rows": rows, "pieces": pieces} for name, rows, pieces in split]
    return b"\n===\n".join([json.dumps(index).encode(), *shards])


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
    for kind, (make, quantization) in make_foreign_goldens.KINDS.items():
        _, parts = make(np.random.default_rng(7), 8, 64)
        module = make_foreign_goldens.safetensors({f"x.{part}": values for part, values in parts.items()})
        config = json.dumps({"model_type": "llama", "quantization_config": quantization}).encode()
        (plain / kind).write_bytes(config + b"\n===\n" + module)

    folders = folder / "folder_index"
    folders.mkdir(parents=True, exist_ok=True)
    norm = {"norm": array("F32", [3], "final_norm")}
    plain2 = {"name": "w", "format": "plain2", "shape": [64, 32], "rows": [["w", 64]]}
    (folders / "plain").write_bytes(quantised([("base", plane_set("w", 64, 32, 2, 1, "layer_0") | norm)], [plain2], []))
    embed = {"name": "e", "format": "rows8", "shape": [2, 32], "rows": [["embed", 2]]}
    coded3 = {"name": "a", "format": "coded3", "refine": "coded2", "shape": [70, 40], "rows": [["q", 40], ["k", 30]]}
    coded4 = {"name": "b", "format": "coded4", "refine": "plain3", "shape": [96, 64], "rows": [["b", 96]]}
    base = {"e.rows8": array("U8", [2, 34], "embeddings")} | plane_set("a", 128, 64, 3, 4, "layer_0")
    base |= plane_set("b", 96, 64, 4, 3, "layer_1") | {"b.su": array("U32", [2], "layer_1")} | norm
    refine = plane_set("a.refine", 128, 64, 2, 6, "layer_0.refine") | plane_set("b.refine", 96, 64, 3, 1, "layer_1.refine")
    both = quantised([("base", base), ("refine", refine)], [embed, coded3, coded4], ["b", "a"])
    (folders / "refined").write_bytes(both)
    pieces = in_pieces({"embed": array("F16", [10, 4], "embeddings")}, "embed", 2)
    pieces |= in_pieces(plane_set("w", 64, 32, 2, 1, "layer_0"), "w.planes", 3) | norm
    at = list(pieces).index("w.planes#1")  # a shard ends between two pieces, and their component is in two parts
    shards = [("base", {}), ("base", {})]
    for i, (name, (type_, shape, component, values)) in enumerate(pieces.items()):
        part = int(i >= at)
        shards[part][1][name] = type_, shape, f"{component}.{part + 1}" if component == "layer_0" else component, values
    (folders / "split").write_bytes(quantised(shards, [plain2], [], [("embed", 10, 2), ("w.planes", 64, 3)]))


if __name__ == "__main__":
    main()
