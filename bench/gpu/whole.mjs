#!/usr/bin/env node
// Whole tokens on the GPU through the engine's package in Node: prompt and answer speeds, and where a token's time goes.
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';

import { prepareNodeGpu } from '../../web/harness/gpu.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompt: { ...text, default: '512' }, tokens: { ...text, default: '128' }, repeats: { ...text, default: '3' }, profile: { type: 'boolean', default: false } },
});
const [folder] = positionals;
prepareNodeGpu();
if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');
const { Engine } = await import('../../web/engine/dist/node.js');
const engine = await Engine.create({ device: 'webgpu' });
const begin = performance.now();
const model = await engine.load(folder, { cache: 'off', planes: 'base' });
const loadMs = performance.now() - begin;
const words = Number(values.prompt);
const generate = async (n) => {
  const stream = model.generate('a '.repeat(words), { raw: true, maxTokens: n, temperature: 0, ignoreEos: true });
  for await (const part of stream) void part;
  return (await stream.result).usage;
};
await generate(8);
const runs = [];
for (let i = 0; i < Number(values.repeats); ++i) {
  await model.reset?.();
  runs.push(await generate(Number(values.tokens)));
}
const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const out = {
  gpu: engine.capabilities.gpu?.adapter,
  load_ms: Math.round(loadMs),
  prompt_tokens: runs[0].promptTokens,
  prefill_tokens_per_s: median(runs.map((r) => r.prefillTokensPerS)),
  decode_tokens_per_s: median(runs.map((r) => r.decodeTokensPerS)),
  gpu_bytes: (await model.memory()).gpuBytes,
};
if (values.profile) out.steps = (await model.profile()).map(({ kernel, groups, n, us }) => `${n} × ${us.toFixed(2)} µs ${kernel} ${groups.join('×')}`);
process.stdout.write(`${JSON.stringify(out, null, 1)}\n`);
await model.dispose();
await engine.dispose();
