// A GGUF of a given geometry with random weights, for speed alone: tokenizer and other metadata are another file's, norms are ones, blocks are
// noise. The output is the embedding, as large as what all layers add to it, so that the model repeats a prompt's last word: a wrong kernel would
// make it say something else, another rounding would not.
import fs from 'node:fs';
import { randomFillSync } from 'node:crypto';

import { TYPES, float_to_half, read_index } from './gguf.mjs';

const U32 = 4, F32 = 6; // value types
const ALIGNMENT = 32;
const SPREAD = { Q2_K: 20, Q4_0: 4.6, Q4_1: 4.6, Q4_K: 170, Q6_K: 1360, Q8_0: 74 }; // of a noise block whose first scale is 1

function string(text) {
  const bytes = Buffer.from(text), n = Buffer.alloc(8);
  n.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([n, bytes]);
}
function value(name, type, x) {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(type);
  if (type === F32) bytes.writeFloatLE(x, 4);
  else bytes.writeUInt32LE(x, 4);
  return Buffer.concat([string(name), bytes]);
}

function noise_matrix(n, k, dtype, deviation) {
  const { weights, bytes, scales } = TYPES[dtype];
  const out = randomFillSync(Buffer.alloc((n * k / weights) * bytes));
  const halves = scales.map(([where, share]) => [where, float_to_half((share * deviation) / SPREAD[dtype])]);
  for (let at = 0; at < out.length; at += bytes) {
    const sign = out[at + halves[0][0]] & 1 ? 0x8000 : 0; // or levels that are not even around zero would add up
    for (const [where, half] of halves) out.writeUInt16LE(half ^ sign, at + where);
  }
  return out;
}

/** Writes `to`: a Llama of `geometry` (Hugging Face's names) with the vocabulary and tokenizer of the GGUF `like`. */
export function write_random_gguf(to, like, geometry, dtype) {
  const { hidden_size: d, intermediate_size: f, num_hidden_layers: n_layers, num_attention_heads: n_heads, num_key_value_heads: n_kv_heads, vocab_size: v } = geometry;
  const dh = d / n_heads;
  const source = fs.readFileSync(like);
  const kept = read_index(new DataView(source.buffer, source.byteOffset, source.length)).values
    .filter(({ name }) => name.startsWith('tokenizer.')).map(({ from, to: end }) => source.subarray(from, end));
  const values = [
    Buffer.concat([string('general.architecture'), Buffer.from([8, 0, 0, 0]), string('llama')]),
    ...Object.entries({
      'general.file_type': TYPES[dtype].file_type, 'general.alignment': ALIGNMENT, 'llama.block_count': n_layers, 'llama.context_length': 8192,
      'llama.embedding_length': d, 'llama.feed_forward_length': f, 'llama.attention.head_count': n_heads, 'llama.attention.head_count_kv': n_kv_heads,
      'llama.rope.dimension_count': dh, 'llama.vocab_size': v,
    }).map(([name, x]) => value(name, U32, x)),
    value('llama.attention.layer_norm_rms_epsilon', F32, 1e-5), value('llama.rope.freq_base', F32, 10000),
    ...kept,
  ];
  const matrix = (name, n, k, deviation = 1 / Math.sqrt(k)) =>
    ({ name, shape: [k, n], type: dtype, make: () => noise_matrix(n, k, dtype, deviation), n_bytes: (n * k / TYPES[dtype].weights) * TYPES[dtype].bytes });
  const back = (k) => 1 / Math.sqrt(k * 2 * n_layers); // what comes back to the residual stream from each of so many
  const ones = (name, n) => ({ name, shape: [n], type: 'F32', make: () => Buffer.from(new Float32Array(n).fill(1).buffer), n_bytes: 4 * n });
  const tensors = [matrix('token_embd.weight', v, d, 1), ones('output_norm.weight', d)];
  for (let i = 0; i < n_layers; i++) {
    const at = `blk.${i}`;
    tensors.push(ones(`${at}.attn_norm.weight`, d), matrix(`${at}.attn_q.weight`, d, d), matrix(`${at}.attn_k.weight`, n_kv_heads * dh, d), matrix(`${at}.attn_v.weight`, n_kv_heads * dh, d),
      matrix(`${at}.attn_output.weight`, d, d, back(d)), ones(`${at}.ffn_norm.weight`, d), matrix(`${at}.ffn_gate.weight`, f, d), matrix(`${at}.ffn_up.weight`, f, d), matrix(`${at}.ffn_down.weight`, d, f, back(f)));
  }
  const aligned = (x) => Math.ceil(x / ALIGNMENT) * ALIGNMENT;
  let offset = 0;
  const table = tensors.map(({ name, shape, type, n_bytes }) => {
    const row = Buffer.alloc(4 + 8 * shape.length + 4 + 8);
    let at = row.writeUInt32LE(shape.length);
    for (const size of shape) at = row.writeBigUInt64LE(BigInt(size), at);
    at = row.writeUInt32LE(TYPES[type].id, at);
    row.writeBigUInt64LE(BigInt(offset), at);
    offset += aligned(n_bytes);
    return Buffer.concat([string(name), row]);
  });
  const start = Buffer.alloc(24);
  start.write('GGUF');
  start.writeUInt32LE(3, 4);
  start.writeBigUInt64LE(BigInt(tensors.length), 8);
  start.writeBigUInt64LE(BigInt(values.length), 16);
  const head = Buffer.concat([start, ...values, ...table]);
  const partial = `${to}.${process.pid}.partial`;
  const out = fs.openSync(partial, 'w');
  fs.writeSync(out, Buffer.concat([head, Buffer.alloc(aligned(head.length) - head.length)]));
  for (const { make, n_bytes } of tensors) fs.writeSync(out, Buffer.concat([make(), Buffer.alloc(aligned(n_bytes) - n_bytes)]));
  fs.closeSync(out);
  fs.renameSync(partial, to);
}
