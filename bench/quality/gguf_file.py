"""The index of a GGUF file: what is in it and where. Spec: ggml's docs/gguf.md."""
import dataclasses
import math
import pathlib
import struct

# ggml's numbers of types → (name, weights of a block, bytes of a block); ggml-common.h.
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 42: ("Q2_0", 64, 18),
}
NUMBER_OF = {name: number for number, (name, _, _) in TYPES.items()}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclasses.dataclass
class Tensor:
    name: str
    shape: list[int]  # innermost first: [K, N]
    type: str
    at: int  # byte in the file
    n_bytes: int

    @property
    def n_weights(self) -> int:
        return math.prod(self.shape)


def read_tensors(path: pathlib.Path) -> list[Tensor]:
    """Raises ValueError when the file is no GGUF or has a type that TYPES does not know."""
    with open(path, "rb") as file:

        def take(code: str):
            return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

        def text() -> str:
            return file.read(take("Q")).decode()

        def value(kind: int):
            if kind == _STRING:
                return text()
            if kind == _ARRAY:
                inner, n = take("I"), take("Q")
                if inner in _SCALARS:
                    return file.seek(n * struct.calcsize("<" + _SCALARS[inner]), 1)
                return [value(inner) for _ in range(n)]
            return take(_SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        take("I")  # version
        n_tensors, n_pairs = take("Q"), take("Q")
        alignment = 32
        for _ in range(n_pairs):
            key, got = text(), value(take("I"))
            if key == "general.alignment":
                alignment = got
        tensors = []
        for _ in range(n_tensors):
            name = text()
            shape = [take("Q") for _ in range(take("I"))]
            number, offset = take("I"), take("Q")
            if number not in TYPES:
                raise ValueError(f"{path}: {name} has type {number}, which this reader does not know")
            kind, block, size = TYPES[number]
            tensors.append(Tensor(name, shape, kind, offset, math.prod(shape) // block * size))
        begin = -(-file.tell() // alignment) * alignment
    for tensor in tensors:
        tensor.at += begin
    return tensors
