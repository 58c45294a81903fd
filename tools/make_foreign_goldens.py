"""Writes tests/golden/{gptq,gptq_order,awq}/ and tests/quantize/bitnet/: small Llamas as other quantisers leave them, and what they compute.

The codes are drawn at random. Each is packed as AutoGPTQ, AutoAWQ and transformers' BitNet integration pack theirs, and its logits come
from the weights that the codes stand for, by a forward pass in float64 that knows nothing of the packing.
BitNet's planes meet 8-bit tables in fast kernels, so its golden is for the scalar ones and has a place of its own.
Needs: pip install numpy. Usage: make_foreign_goldens.py [FOLDER]   (default: tests beside this repository's tools)
"""
import json
import pathlib
import struct
import sys

import numpy as np

D, FF, LAYERS, HEADS, KV_HEADS, DH, VOCAB, EPS, THETA = 64, 96, 2, 4, 2, 16, 256, 1e-6, 10000.0
LINEARS = {
    "self_attn.q_proj": (HEADS * DH, D),
    "self_attn.k_proj": (KV_HEADS * DH, D),
    "self_attn.v_proj": (KV_HEADS * DH, D),
    "self_attn.o_proj": (D, HEADS * DH),
    "mlp.gate_proj": (FF, D),
    "mlp.up_proj": (FF, D),
    "mlp.down_proj": (D, FF),
}
N_TOKENS = 24


def int4(random, n, k, group, symmetric, shuffled):
    """Codes [N, K], zeros and scales [groups, N], the group of each input, and w = scale * (q - zero)."""
    groups = -(-k // group)
    q = random.integers(0, 16, (n, k))
    zeros = np.full((groups, n), 8) if symmetric else random.integers(0, 16, (groups, n))
    scales = random.uniform(0.01, 0.04, (groups, n)).astype(np.float16)
    g_idx = np.arange(k) // group
    if shuffled:
        random.shuffle(g_idx)
    w = scales.astype(np.float64)[g_idx].T * (q - zeros[g_idx].T)
    return q, zeros, scales, g_idx, w


def pack_last(x, order):
    """[.., 8m] numbers of 4 bits to [.., m] words; nibble i of a word is number order[i] of its eight."""
    x = x.reshape(*x.shape[:-1], -1, 8)[..., order].astype(np.uint64)
    return (x << (4 * np.arange(8, dtype=np.uint64))).sum(-1).astype(np.uint32).view(np.int32)


IN_ORDER, INTERLEAVED = list(range(8)), [0, 2, 4, 6, 1, 3, 5, 7]


def gptq(random, n, k, group=32, symmetric=False, shuffled=False):
    q, zeros, scales, g_idx, w = int4(random, n, k, group, symmetric, shuffled)
    return w, {
        "qweight": np.ascontiguousarray(pack_last(q, IN_ORDER).T),  # eight inputs a word
        "qzeros": pack_last((zeros - 1) & 15, IN_ORDER),  # eight outputs a word, less one
        "scales": scales,
        "g_idx": g_idx.astype(np.int32),
    }


def awq(random, n, k):
    q, zeros, scales, _, w = int4(random, n, k, 32, False, False)
    return w, {"qweight": pack_last(q.T, INTERLEAVED), "qzeros": pack_last(zeros, INTERLEAVED), "scales": scales}


def bitnet(random, n, k):
    t = random.integers(-1, 2, (n, k))
    scale = np.float32(random.uniform(8, 12))
    quarters = (t + 1).reshape(4, n // 4, k).astype(np.uint8)
    packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
    return t / np.float64(scale), {"weight": packed, "weight_scale": np.array([scale], np.float32)}


KINDS = {
    "gptq": (lambda r, n, k: gptq(r, n, k), {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": False}),
    "gptq_order": (
        lambda r, n, k: gptq(r, n, k, symmetric=True, shuffled=n == D),
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": True, "checkpoint_format": "gptq"},
    ),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
    "bitnet": (bitnet, {"quant_method": "bitnet", "linear_class": "bitlinear", "modules_to_not_convert": None}),
}


def rms_norm(x, g):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * g


def rope(x):  # [T, H, dh]
    half = DH // 2
    angle = np.arange(len(x))[:, None] * THETA ** (-np.arange(half) / half)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def logits_of(ids, w):
    x = w["model.embed_tokens.weight"][ids]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        h = rms_norm(x, w[at + "input_layernorm.weight"])
        q = rope((h @ w[at + "self_attn.q_proj"].T).reshape(-1, HEADS, DH))
        k = rope((h @ w[at + "self_attn.k_proj"].T).reshape(-1, KV_HEADS, DH)).repeat(HEADS // KV_HEADS, 1)
        v = (h @ w[at + "self_attn.v_proj"].T).reshape(-1, KV_HEADS, DH).repeat(HEADS // KV_HEADS, 1)
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(DH) + mask
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", p, v).reshape(len(ids), -1) @ w[at + "self_attn.o_proj"].T
        h = rms_norm(x, w[at + "post_attention_layernorm.weight"])
        gate = h @ w[at + "mlp.gate_proj"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[at + "mlp.up_proj"].T)) @ w[at + "mlp.down_proj"].T
    return rms_norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def safetensors(tensors):
    names = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int32): "I32", np.dtype(np.uint8): "U8"}
    header, data = {}, b""
    for name, a in tensors.items():
        header[name] = {"dtype": names[a.dtype], "shape": list(a.shape), "data_offsets": [len(data), len(data) + a.nbytes]}
        data += np.ascontiguousarray(a).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_golden(folder, make, quantization, seed):
    random = np.random.default_rng(seed)
    stored, weights = {}, {}

    def keep(name, a):
        stored[name] = a
        weights[name] = a.astype(np.float64)

    keep("model.embed_tokens.weight", random.normal(size=(VOCAB, D)).astype(np.float16))
    keep("model.norm.weight", random.normal(1, 0.1, D).astype(np.float16))
    for i in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            keep(f"model.layers.{i}.{norm}.weight", random.normal(1, 0.1, D).astype(np.float16))
        for name, (n, k) in LINEARS.items():
            module = f"model.layers.{i}.{name}"
            weights[module], parts = make(random, n, k)
            stored |= {f"{module}.{part}": a for part, a in parts.items()}
    ids = random.integers(0, VOCAB, N_TOKENS)
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(stored))
    logits = logits_of(ids, weights).astype(np.float32)[None]
    (folder / "golden.safetensors").write_bytes(safetensors({"out.logits": logits, "in.input_ids": ids.astype(np.int32)[None]}))
    config = {
        "model_type": "llama", "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": DH, "vocab_size": VOCAB, "max_position_embeddings": 128, "rms_norm_eps": EPS,
        "rope_theta": THETA, "tie_word_embeddings": True, "quantization_config": quantization,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "tests"
    for seed, (kind, (make, quantization)) in enumerate(KINDS.items()):
        write_golden(root / ("quantize" if kind == "bitnet" else "golden") / kind, make, quantization, seed)
