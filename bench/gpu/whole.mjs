#!/usr/bin/env node
// Whole tokens on the GPU through the engine's package in Node: prompt and answer speeds, and with --profile what the steps of a token take.
// The engine checks its kernels against the CPU's before it answers; with another GPU answer than theirs nothing is timed.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { nodeEngine } from '../../web/harness/node_engine.mjs';
import { spread } from '../peers/statistics.mjs';
import { plainMatmulMs } from './plain_matmul.mjs';
import { openDevice, streamRate } from './stream.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { prompt: { ...text, default: '512' }, tokens: { ...text, default: '128' }, repeats: { ...text, default: '5' }, sampling: { ...text, default: '{"temperature":0}' }, profile: { type: 'boolean', default: false }, plain: { type: 'boolean', default: false } },
});
const [folder] = positionals;
if (!folder || !existsSync(join(folder, 'subbyte.index.json'))) {
  process.stderr.write('usage: whole.mjs FOLDER [--prompt N] [--tokens N] [--repeats N] [--sampling JSON] [--profile] [--plain]\n(FOLDER: a quantised model, or one of random_model.mjs; JSON: options of generate, such as {"temperature":0.8,"topP":0.9})\n');
  process.exit(2);
}
const { Engine } = await nodeEngine({ device: 'webgpu' });
const engine = await Engine.create({ device: 'webgpu', fallback: false });
const begin = performance.now();
const model = await engine.load(folder, { cache: 'off', planes: 'base' });
const loadMs = performance.now() - begin;

async function answer(nTokens) {
  await model.reset();
  const stream = model.generate('a '.repeat(Number(values.prompt)), { raw: true, maxTokens: nTokens, ...JSON.parse(values.sampling), ignoreEos: true });
  for await (const part of stream) void part;
  return stream.result;
}
const first = await answer(Number(values.tokens)); // warms up, and says what all others must say
const runs = [];
for (let i = 0; i < Number(values.repeats); ++i) {
  const { ids, usage } = await answer(Number(values.tokens));
  if (ids.join() !== first.ids.join()) throw new Error(`run ${i} answers other tokens than the first`);
  runs.push(usage);
}
const { steps, tokenUs } = values.profile ? await model.profile() : { steps: [] };
const memory = await model.memory();
await model.dispose();
await engine.dispose();

// A token reads every plane but those of the embedding's other rows.
const { matrices } = JSON.parse(readFileSync(join(folder, 'subbyte.index.json'), 'utf8'));
const isRead = ({ name }) => !name.includes('embed_tokens') || !matrices.some((m) => m.name.includes('lm_head'));
const tokenBytes = matrices.filter(isRead).reduce((sum, { shape, format }) => sum + (shape[0] * shape[1] * Number(format.at(-1))) / 8, 0);
const device = await openDevice();
const stream = await streamRate(device);
// With --plain: the prompt's products, head excepted, as a plain float32 kernel makes them.
const layers = matrices.filter(({ name }) => !name.includes('embed_tokens') && !name.includes('lm_head'));
const shapes = [...new Set(layers.map(({ shape }) => shape.join()))].map((s) => s.split(',').map(Number));
const nRows = 128 * Math.ceil(Number(values.prompt) / 128);
const plain = values.plain ? await plainMatmulMs(device, shapes, nRows) : [];
const plainMs = plain.length && layers.reduce((sum, { shape }) => sum + plain[shapes.findIndex(([n, k]) => n === shape[0] && k === shape[1])], 0);
const prefill = spread(runs.map((r) => r.prefillTokensPerS));
const decode = spread(runs.map((r) => r.decodeTokensPerS));
const out = {
  gpu: engine.capabilities.gpu?.adapter,
  load_ms: Math.round(loadMs),
  prompt_tokens: runs[0].promptTokens,
  prefill_tokens_per_s: prefill,
  plain_products: plainMs ? { tokens_per_s: Math.round((1000 * nRows) / plainMs), gflops: plain.map((ms, i) => Math.round((2 * nRows * shapes[i][0] * shapes[i][1]) / ms / 1e6)), prefill_is: Number((prefill.median / ((1000 * nRows) / plainMs)).toFixed(2)) } : undefined,
  decode_tokens_per_s: decode,
  bytes_a_token: tokenBytes,
  stream_gb_per_s: Math.round(stream / 1e9),
  share_of_stream: Number(((decode.median * tokenBytes) / stream).toFixed(3)),
  gpu_bytes: memory.gpuBytes,
  dispatches: steps.reduce((sum, { n }) => sum + n, 0) || undefined,
  token_gpu_us: tokenUs && Math.round(tokenUs),
  gpu_us: steps.length ? Math.round(steps.reduce((sum, { n, us }) => sum + n * us, 0)) : undefined,
  steps: steps.map(({ kernel, groups, n, us, tokenUs }) => `${n} × ${tokenUs.toFixed(2)} µs (alone ${us.toFixed(2)}) ${kernel} ${groups.join('×')}`),
};
process.stdout.write(`${JSON.stringify(out, null, 1)}\n`);
process.exit(0); // Dawn's last device need not be waited for
