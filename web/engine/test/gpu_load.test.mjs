// Models on the GPU, in Node over Dawn: their weights go there while they load, once, and come and go with the refinement.
// Run with: node --test web/engine/test/gpu_load.test.mjs   Without a driver a counted skip, and a failure where CI is set.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { nodeEngine } from '../../harness/backend.mjs';
import { GpuMissing, prepareNodeGpu } from '../../harness/gpu.mjs';
import { PROMPT } from './case_tools.mjs';
import { makeQuantised } from './quantised.mjs';

let skip = false;
try {
  prepareNodeGpu({ always: true });
} catch (error) {
  if (!(error instanceof GpuMissing) || process.env.CI) throw error;
  skip = error.message;
}
const { Engine } = await nodeEngine();
const OnGpu = { create: (options) => Engine.create({ ...options, device: 'webgpu' }) };
const quantised = await makeQuantised();
after(() => quantised.remove());

const weights = ({ byTag, gpu }) => ({ all: byTag.weights.current, gpu: gpu.byTag.weights.current });

// Few tokens: a software GPU spends its time on new pipelines.
test('gpu: a refinement comes, takes its bytes of the GPU, and gives them back', { timeout: 240_000, skip }, async () => {
  const answer = async (model) => {
    await model.reset();
    return String((await model.generate(PROMPT, { maxTokens: 4, ignoreEos: true }).result).ids);
  };
  const onCpu = await Engine.create({ device: 'cpu' });
  const cpu = await onCpu.load(quantised.made, { planes: 'full' });
  const full = await answer(cpu);
  await cpu.dropRefinement();
  const base = await answer(cpu);
  await onCpu.dispose();
  assert.notEqual(base, full, 'the two sets answer alike: this would prove nothing');

  const engine = await OnGpu.create();
  const model = await engine.load(quantised.made, { planes: 'base' });
  assert.equal(await answer(model), base);
  const atBase = weights(await model.memory());
  await model.refine();
  assert.equal(await answer(model), full);
  const atFull = weights(await model.memory());
  const { freedBytes } = await model.dropRefinement();
  const after = weights(await model.memory());
  assert.ok(atFull.all - after.all >= freedBytes && freedBytes > 0, `${atFull.all} - ${after.all} bytes, ${freedBytes} said to be free`);
  assert.ok(atFull.gpu - after.gpu > 0.8 * freedBytes, `${atFull.gpu} - ${after.gpu} bytes of ${freedBytes}`);
  assert.ok(after.gpu - atBase.gpu < 0.2 * (atFull.gpu - atBase.gpu), 'small vectors may stay');
  assert.equal(await answer(model), base);
  await engine.dispose();
});

/** A folder whose embedding alone has 48 MiB: a Llama of one layer and many tokens. */
async function largeFolder() {
  const folder = await mkdtemp(join(tmpdir(), 'subbyte-large-'));
  const [vocab, width, inner] = [192 * 1024, 128, 256];
  const config = { model_type: 'llama', vocab_size: vocab, hidden_size: width, intermediate_size: inner, num_hidden_layers: 1, num_attention_heads: 4, num_key_value_heads: 4, max_position_embeddings: 256, rms_norm_eps: 1e-5, tie_word_embeddings: true };
  const layer = 'model.layers.0';
  const shapes = {
    'model.embed_tokens.weight': [vocab, width],
    'model.norm.weight': [width],
    [`${layer}.input_layernorm.weight`]: [width],
    [`${layer}.post_attention_layernorm.weight`]: [width],
    ...Object.fromEntries(['q', 'k', 'v', 'o'].map((name) => [`${layer}.self_attn.${name}_proj.weight`, [width, width]])),
    [`${layer}.mlp.gate_proj.weight`]: [inner, width],
    [`${layer}.mlp.up_proj.weight`]: [inner, width],
    [`${layer}.mlp.down_proj.weight`]: [width, inner],
  };
  let end = 0;
  const header = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const begin = end;
    end += 2 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: 'F16', shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header).padEnd(4096));
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  const file = await open(join(folder, 'model.safetensors'), 'w');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await file.write(Buffer.concat([length, text]));
  await file.truncate(8 + text.length + end); // zeros
  await file.close();
  return { folder, nBytes: end };
}

for (const wasm of ['simd', 'relaxed-threads']) {
  test(`gpu: a model passes the ${wasm} heap in small pieces, and lies on the GPU once`, { timeout: 120_000, skip }, async (t) => {
    const { folder, nBytes } = await largeFolder();
    t.after(() => rm(folder, { recursive: true }));
    let engine;
    try {
      engine = await OnGpu.create({ wasm });
    } catch (error) {
      assert.equal(error.code, 'kWasmUnsupported');
      return t.skip(error.message);
    }
    const model = await engine.load(folder);
    const memory = await model.memory();
    assert.ok(memory.gpu.byTag.weights.current >= nBytes - 16384 && memory.gpu.byTag.weights.peak < 1.01 * nBytes, JSON.stringify(memory));
    assert.ok(memory.byTag.weights.peak - memory.gpu.byTag.weights.peak < 16384, 'the host has small vectors alone');
    assert.ok(memory.byTag.staging.peak <= 8 << 20, `${memory.byTag.staging.peak} bytes were staged`);
    assert.ok(memory.wasmBytes < 24 << 20, `${memory.wasmBytes} bytes of WebAssembly memory for ${nBytes} of weights`);
    assert.ok(Math.abs(memory.gpuBytes - memory.gpu.current) <= 4096, `${memory.gpuBytes} in buffers, ${memory.gpu.current} in the books`);
    await engine.dispose();
  });
}
