#!/usr/bin/env python3
"""What llama.cpp's types lose on a model: a JSON line a type. README.md beside this says how its tools are built.

usage: llama_rows.py BIN SOURCE.gguf OUT.jsonl --calibrate CALIB.txt --text TEST.txt [--work DIR] [--threads N]
                     [--windows 40] [--seconds S] [ROW…]

BIN holds llama-quantize, llama-imatrix, llama-perplexity and, for flat rows, libggml-base.so. The reference is SOURCE dequantised to F32:
every row is quantised from it and compared with it. A row is

    [pure:]TYPE[+im][/EMBEDDING]    a file as llama-quantize makes it; +im: with importance matrix; EMBEDDING: type of the embedding
    flat:TYPE[+im]/EMBEDDING        every matrix in TYPE, also where its rows do not fit TYPE's blocks of 256 weights and
                                    llama-quantize would take a bigger type: neighbouring rows are joined into one for
                                    ggml_quantize_chunk. What a file of this kind would lose and weigh; llama.cpp cannot write one
    source                          SOURCE itself: what llama.cpp's arithmetic alone differs by

Rows that OUT has are not made again. Without ROW the list of the model in rows.json is made.
"""
import argparse
import array
import concurrent.futures
import ctypes
import json
import math
import pathlib
import re
import shlex
import subprocess
import sys
import time

import gguf_file
import records

HERE = pathlib.Path(__file__).resolve().parent


def parse_row(row: str) -> tuple[str, str, bool, str]:
    """→ (way: "file" | "pure" | "flat" | "source", type, has importance matrix, embedding's type or "")"""
    if row == "source":
        return "source", "", False, ""
    way, _, rest = row.rpartition(":")
    kind, _, embedding = rest.partition("/")
    type_name = kind.removesuffix("+im")
    if way not in ("", "pure", "flat") or way == "flat" and not {type_name, embedding} <= gguf_file.NUMBER_OF.keys():
        sys.exit(f"llama_rows.py: no row is called {row}; flat rows take two of {', '.join(gguf_file.NUMBER_OF)}")
    return way or "file", type_name, kind.endswith("+im"), embedding


class Tools:
    def __init__(self, arguments):
        self.bin = arguments.bin
        self.commands: list[str] = []

    def run(self, name: str, *arguments) -> str:
        command = [str(self.bin / name), *map(str, arguments)]
        self.commands.append(shlex.join([name, *(pathlib.Path(a).name if "/" in a else a for a in command[1:])]))
        got = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if got.returncode:
            raise RuntimeError(f"{name} ended with {got.returncode}: " + " | ".join(got.stdout.strip().splitlines()[-3:]))
        return got.stdout

    def take_commands(self) -> list[str]:
        commands, self.commands = self.commands, []
        return commands


class Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h; past these fields nothing is read."""

    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64), ("n_bytes", ctypes.c_size_t),
                ("is_quantized", ctypes.c_bool), ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]


class Flat:
    """Quantises and dequantises with ggml's own functions."""

    def __init__(self, library: pathlib.Path, n_threads: int):
        self.ggml = ctypes.CDLL(str(library))
        self.ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
        self.ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                                  ctypes.c_int64, ctypes.c_void_p]
        self.ggml.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
        self.pool = concurrent.futures.ThreadPoolExecutor(n_threads)
        self.n_threads = n_threads

    def there_and_back(self, values: bytearray, n_columns: int, kind: str, importance: array.array | None) -> int:
        """`values`: float32 [N, K], replaced by what `kind` makes of them. Returns the bytes that `kind` takes."""
        number = gguf_file.NUMBER_OF[kind]
        traits = self.ggml.ggml_get_type_traits(number).contents
        _, block, n_bytes = gguf_file.TYPES[number]
        if (traits.name.decode().upper(), traits.block, traits.n_bytes) != (kind, block, n_bytes):
            raise RuntimeError(f"this ggml's type {number} is not {kind} as gguf_file.py knows it")
        n_joined = block // math.gcd(n_columns, block)
        n_rows, width = len(values) // 4 // n_columns // n_joined, n_columns * n_joined
        if n_rows * width * 4 != len(values):
            raise RuntimeError(f"{kind} needs {n_joined} rows joined, which does not divide a matrix with rows of {n_columns}")
        weights = None
        if importance is not None:
            weights = array.array("f", importance * n_joined)
        elif self.ggml.ggml_quantize_requires_imatrix(number):
            weights = array.array("f", [1.0]) * width
        self.ggml.ggml_quantize_init(number)  # its tables: once, before threads
        source = (ctypes.c_char * len(values)).from_buffer(values)
        base = ctypes.addressof(source)
        row_bytes = width // block * n_bytes

        def part(first: int, n: int) -> None:
            if n <= 0:
                return
            coded = ctypes.create_string_buffer(row_bytes * n)
            where = base + first * width * 4
            self.ggml.ggml_quantize_chunk(number, where, coded, 0, n, width, weights.buffer_info()[0] if weights else None)
            traits.to_float(ctypes.addressof(coded), where, n * width)

        step = -(-n_rows // (self.n_threads * 4))
        list(self.pool.map(lambda first: part(first, min(step, n_rows - first)), range(0, n_rows, step)))
        return n_rows * row_bytes


def importance_of(path: pathlib.Path) -> dict[str, array.array]:
    """Mean squared inputs [K] by tensor, of llama-imatrix's GGUF."""
    tensors = {t.name: t for t in gguf_file.read_tensors(path)}
    out = {}
    with open(path, "rb") as file:

        def floats(name: str) -> array.array:
            file.seek(tensors[name].at)
            return array.array("f", file.read(tensors[name].n_bytes))

        for name in tensors:
            if name.endswith(".in_sum2"):
                stem = name.removesuffix(".in_sum2")
                count = max(floats(stem + ".counts")[0], 1.0)
                out[stem] = array.array("f", [x / count for x in floats(name)])
    return out


def make_flat(flat: Flat, source: pathlib.Path, target: pathlib.Path, kind: str, embedding: str, importance: dict) -> dict:
    """SOURCE (float32) with every matrix sent through `kind`, written as float32; → what a file in that type would weigh."""
    target.write_bytes(b"")
    tensors = gguf_file.read_tensors(source)
    n_bytes = 0
    with open(source, "rb") as from_file, open(target, "wb") as to_file:
        to_file.write(from_file.read(min(t.at for t in tensors)))
        for tensor in tensors:
            from_file.seek(tensor.at)
            values = bytearray(from_file.read(tensor.n_bytes))
            if len(tensor.shape) < 2:
                n_bytes += tensor.n_bytes
            elif tensor.type != "F32":
                raise RuntimeError(f"{tensor.name} is {tensor.type}; flat rows are made from float32")
            else:
                to = embedding if is_embedding(tensor) else kind
                n_bytes += flat.there_and_back(values, tensor.shape[0], to, importance.get(tensor.name))
            to_file.seek(tensor.at)
            to_file.write(values)
    return {"weight_bytes": n_bytes, "types": {t.name: embedding if is_embedding(t) else kind for t in tensors if len(t.shape) > 1}}


def weigh(path: pathlib.Path) -> dict:
    tensors = gguf_file.read_tensors(path)
    return {"weight_bytes": sum(t.n_bytes for t in tensors), "file_bytes": path.stat().st_size,
            "types": {t.name: t.type for t in tensors if len(t.shape) > 1}}


def is_embedding(tensor: gguf_file.Tensor) -> bool:
    return tensor.name.startswith("token_embd")


def summary_of_types(types: dict[str, str], source: list[gguf_file.Tensor]) -> dict:
    """→ shares of all matrices' weights by type, and the share of the linear layers' weights that are coded on the very grid which SOURCE
    stores them on (Q4_K's blocks of 32 with a minimum are Q4_1's): they lose less than they would on a model from training."""
    matrices = [t for t in source if t.name in types]
    linears = [t for t in matrices if not is_embedding(t)]
    shares: dict[str, float] = {}
    for t in matrices:
        shares[types[t.name]] = shares.get(types[t.name], 0) + t.n_weights / sum(m.n_weights for m in matrices)
    same = sum(t.n_weights for t in linears if types[t.name] == t.type or (types[t.name], t.type) == ("Q4_K", "Q4_1"))
    return {"types": {kind: round(share, 4) for kind, share in shares.items()},
            "on_grid": round(same / sum(t.n_weights for t in linears), 4)}


def statistics_of(output: str) -> dict:
    """The figures of llama-perplexity --kl-divergence; shares as 0 … 1."""

    def pair(pattern: str) -> tuple[float, float]:
        found = re.search(pattern + r"\s*:\s*([-\d.e+]+)\s*±\s*([-\d.e+]+)", output)
        if not found:
            raise RuntimeError("llama-perplexity said nothing of " + pattern + ": " + " | ".join(output.strip().splitlines()[-3:]))
        return float(found[1]), float(found[2])

    ppl, ppl_se = pair(r"Mean PPL\(Q\)")
    kl, kl_se = pair(r"Mean\s+KLD")
    return {"ppl": ppl, "ppl_se": ppl_se, "ppl_ref": pair(r"Mean PPL\(base\)")[0], "kl": kl, "kl_se": kl_se,
            "agree": pair("Same top p")[0] / 100}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bin", "source", "out"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--calibrate", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("llama-work"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no row after so many")
    parser.add_argument("rows", nargs="*")
    a = parser.parse_intermixed_args()
    began = time.monotonic()
    a.work.mkdir(parents=True, exist_ok=True)
    model = records.model_of(a.source)
    rows = a.rows or json.loads((HERE / "rows.json").read_text())[model]["llama.cpp"]
    parsed = [parse_row(row) for row in rows]
    tools = Tools(a)

    base = a.work / f"{model}-F32.gguf"
    logits = a.work / f"{model}-{a.text.stem}-{a.windows}.kld"
    imatrix = a.work / f"{model}-{a.calibrate.stem}.imatrix.gguf"
    evaluation = ["-f", a.text, "-c", 512, "-b", 512, "-t", a.threads, "--chunks", a.windows]
    if not base.exists():
        tools.run("llama-quantize", "--allow-requantize", a.source, made := base.with_suffix(".part"), "F32", a.threads)
        made.rename(base)
    if not logits.exists():
        tools.run("llama-perplexity", "-m", base, "--kl-divergence-base", made := logits.with_suffix(".part"), *evaluation)
        made.rename(logits)
    if not imatrix.exists() and any(has_importance for _, _, has_importance, _ in parsed):
        made = imatrix.with_name("part-" + imatrix.name)
        tools.run("llama-imatrix", "-m", base, "-f", a.calibrate, "-o", made, "-c", 512, "-t", a.threads)
        made.rename(imatrix)
    source = gguf_file.read_tensors(a.source)
    n_parameters = sum(t.n_weights for t in source)
    print("\n".join(tools.take_commands()), file=sys.stderr)

    failed = 0
    store = records.Store(a.out)
    for row, (way, kind, has_importance, embedding) in zip(rows, parsed):
        key = {"model": model, "who": "llama.cpp", "setting": row, "text": a.text.stem, "n_windows": a.windows,
               "calibration": a.calibrate.stem}
        if store.has(key):
            continue
        if time.monotonic() - began > a.seconds:
            print(f"{row} and what follows: not started, {a.seconds:.0f} s have passed", file=sys.stderr)
            break
        file = a.source if way == "source" else a.work / f"{model}-row.gguf"
        started = time.monotonic()
        try:
            if way == "flat":
                flat = Flat(a.bin / "libggml-base.so", a.threads)
                weight = make_flat(flat, base, file, kind, embedding, importance_of(imatrix) if has_importance else {})
                tools.commands.append(f"ggml_quantize_chunk({kind}), ggml_quantize_chunk({embedding})")
            else:
                if way != "source":
                    options = ["--imatrix", imatrix] * has_importance + ["--pure"] * (way == "pure")
                    options += ["--token-embedding-type", embedding.lower()] if embedding else []
                    said = tools.run("llama-quantize", *options, base, file, kind, a.threads)
                    fallback = re.search(r"(\d+) of (\d+) tensor\(s\) required fallback", said)
                weight = weigh(file)
                if way != "source" and fallback:
                    weight["fallback"] = f"{fallback[1]} of {fallback[2]}"
            made_in = time.monotonic() - started
            said = tools.run("llama-perplexity", "-m", file, "--kl-divergence-base", logits, "--kl-divergence", *evaluation)
            figures = statistics_of(said)
        except RuntimeError as error:
            failed += 1
            tools.take_commands()
            print(f"{row}: {error}", file=sys.stderr)
            continue
        finally:
            if way != "source":
                file.unlink(missing_ok=True)
        weight.update(summary_of_types(weight["types"], source))
        bits = 8 * weight["weight_bytes"] / n_parameters
        store.add({**key, **figures, **weight, "bpw": round(bits, 4), "quantize_s": round(made_in, 1), "commands": tools.take_commands()})
        print(f"{model} {row}: {weight['weight_bytes'] / 1e6:.1f} MB, {bits:.3f} bpw, KL {figures['kl']:.4f}, ppl {figures['ppl']:.2f}",
              file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
