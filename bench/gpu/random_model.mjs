#!/usr/bin/env node
// A model folder of a given geometry with random planes, for speed alone: its norms, rotation, filter and scales are real in form, its words
// are noise. What it answers is only held against another device.
import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

export const geometries = {
  '7b': { hidden_size: 4096, intermediate_size: 11008, num_hidden_layers: 32, num_attention_heads: 32, num_key_value_heads: 32, vocab_size: 32000 },
  '70b': { hidden_size: 8192, intermediate_size: 28672, num_hidden_layers: 80, num_attention_heads: 64, num_key_value_heads: 8, vocab_size: 32000 },
  '1b': { hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16, num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 32000 },
  tiny: { hidden_size: 192, intermediate_size: 640, num_hidden_layers: 2, num_attention_heads: 3, num_key_value_heads: 1, vocab_size: 1600 },
  '135m': { hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9, num_key_value_heads: 3, vocab_size: 32000 },
};
const TOKENIZER = join(dirname(fileURLToPath(import.meta.url)), '../../tests/golden/tokenizers/llama2/tokenizer.json');
const TAPS = { 2: 6, 3: 4, 4: 3 };

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** float32 → float16 of numbers that are normal in both. */
function half(x) {
  const bits = new Uint32Array(new Float32Array([x]).buffer)[0];
  return ((bits >>> 16) & 0x8000) | ((((bits >>> 23) & 255) - 112) << 10) | ((bits >>> 13) & 0x3ff);
}

/** Random words: the system's for one block, turned into as many as wanted (quality does not matter, speed does). */
const noise = randomFillSync(new Uint8Array(1 << 24));
function fillNoise(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const from = Math.floor(Math.random() * (noise.length / 2)) & ~3;
    const n = Math.min(bytes.length - at, noise.length - from);
    bytes.set(noise.subarray(from, from + n), at);
    at += n;
  }
}

/** A component's tensors: {name, dtype, shape, bytes}. */
function matrix(name, n, k, bits) {
  const planes = new Uint8Array((n * bits * k) / 8);
  fillNoise(planes);
  const signs = new Uint8Array(k / 8);
  fillNoise(signs);
  const filter = new Float32Array(TAPS[bits] * bits).map(() => Math.random() - 0.5);
  const norm = Math.hypot(...filter);
  return [
    { name: `${name}.planes`, dtype: 'U32', shape: [n, bits, k / 32], bytes: planes },
    { name: `${name}.sv`, dtype: 'F16', shape: [n], bytes: new Uint8Array(new Uint16Array(n).fill(half(1 / Math.sqrt(k))).buffer) },
    { name: `${name}.c`, dtype: 'F16', shape: [k], bytes: new Uint8Array(new Uint16Array(k).fill(half(1)).buffer) },
    { name: `${name}.filter`, dtype: 'F32', shape: [TAPS[bits], bits], bytes: new Uint8Array(filter.map((x) => x / norm).buffer) },
    { name: `${name}.su`, dtype: 'U32', shape: [k / 32], bytes: signs },
  ];
}
const gain = (name, n) => ({ name, dtype: 'F32', shape: [n], bytes: new Uint8Array(new Float32Array(n).fill(1).buffer) });

/** Writes the folder; returns the bytes of its planes. `tokenizer` is a tokenizer.json, whose vocabulary is filled up with words that no text has. */
export function writeRandomModel(folder, geometry, bits, { nLayers = geometry.num_hidden_layers, tokenizer = TOKENIZER } = {}) {
  const config = { model_type: 'llama', architectures: ['LlamaForCausalLM'], ...geometry, num_hidden_layers: nLayers, rms_norm_eps: 1e-5, rope_theta: 10000,
    max_position_embeddings: 8192, tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2, quantization_config: { quant_method: 'subbyte', version: 1 } };
  const { hidden_size: d, intermediate_size: f, num_attention_heads: heads, num_key_value_heads: kvHeads, vocab_size: v } = config;
  const dh = d / heads;
  const matrices = [];
  const coded = (name, k, rows) => {
    const n = rows.reduce((sum, [, count]) => sum + count, 0);
    matrices.push({ name, format: `coded${bits}`, shape: [n, k], rows });
    return matrix(name, n, k, bits);
  };
  const components = [{ name: 'embeddings', make: () => coded('model.embed_tokens.weight', d, [['model.embed_tokens.weight', v]]) }];
  for (let i = 0; i < nLayers; ++i) {
    const at = `model.layers.${i}`;
    components.push({
      name: `layer_${i}`,
      make: () => [
        ...coded(`${at}.self_attn.qkv.weight`, d, [[`${at}.self_attn.q_proj.weight`, d], [`${at}.self_attn.k_proj.weight`, kvHeads * dh], [`${at}.self_attn.v_proj.weight`, kvHeads * dh]]),
        ...coded(`${at}.self_attn.o_proj.weight`, d, [[`${at}.self_attn.o_proj.weight`, d]]),
        ...coded(`${at}.mlp.gate_up.weight`, d, [[`${at}.mlp.gate_proj.weight`, f], [`${at}.mlp.up_proj.weight`, f]]),
        ...coded(`${at}.mlp.down_proj.weight`, f, [[`${at}.mlp.down_proj.weight`, d]]),
        gain(`${at}.input_layernorm.weight`, d),
        gain(`${at}.post_attention_layernorm.weight`, d),
      ],
    });
  }
  components.push({ name: 'lm_head', make: () => [gain('model.norm.weight', d), ...coded('lm_head.weight', d, [['lm_head.weight', v]])] });

  mkdirSync(folder, { recursive: true });
  const shards = [];
  const ranges = [];
  let planeBytes = 0;
  components.forEach(({ name, make }, i) => {
    const tensors = make();
    const head = {};
    let at = 0;
    for (const { name: tensor, dtype, shape, bytes } of tensors) {
      head[tensor] = { dtype, shape, data_offsets: [at, (at += bytes.length)] };
      if (tensor.endsWith('.planes')) planeBytes += bytes.length;
    }
    let text = JSON.stringify(head);
    text += ' '.repeat((8 - (text.length % 8)) % 8);
    const start = Buffer.alloc(8 + text.length);
    start.writeBigUInt64LE(BigInt(text.length));
    start.write(text, 8);
    const file = `base-${String(i + 1).padStart(5, '0')}.safetensors`;
    const out = openSync(join(folder, file), 'w');
    const sum = createHash('sha256');
    writeSync(out, start);
    for (const { bytes } of tensors) {
      sum.update(bytes);
      writeSync(out, bytes);
    }
    closeSync(out);
    shards.push({ file, set: 'base', bytes: start.length + at, head_bytes: start.length, head_sha256: sha256(start) });
    ranges.push({ name, set: 'base', shard: file, bytes: [start.length, start.length + at], sha256: sum.digest('hex'), needs: [] });
  });
  const body = JSON.stringify({ format: 'subbyte-folder', version: 1, shards, components: ranges, matrices, give_back: [] }).slice(0, -1);
  writeFileSync(join(folder, 'subbyte.index.json'), `${body},"index_sha256":"${sha256(body)}"}`);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const words = JSON.parse(readFileSync(tokenizer, 'utf8'));
  for (let id = Object.keys(words.model.vocab).length; id < v; ++id) words.model.vocab[`\ue000${id}`] = id;
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(words));
  return planeBytes;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { bits: { type: 'string', default: '2' }, layers: { type: 'string' } } });
  const [name, folder] = positionals;
  if (!geometries[name] || !folder || !TAPS[values.bits]) {
    process.stderr.write(`usage: random_model.mjs ${Object.keys(geometries).join('|')} FOLDER [--bits 2|3|4] [--layers N]\n`);
    process.exit(2);
  }
  const nLayers = values.layers ? Number(values.layers) : undefined;
  process.stdout.write(`${writeRandomModel(folder, geometries[name], Number(values.bits), { nLayers })} bytes of planes\n`);
}
