#!/usr/bin/env node
// From a new process to the first token on the GPU, in Node over Dawn: what compiling, bringing the weights, checking the kernels and the first
// step take, with kernels compiled beside the load and without. The two take turns; all must answer the same token.
// usage: start.mjs FOLDER [--rounds N] [--prompt N]
import { spawn } from 'node:child_process';
import { writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';

import { nodeEngine } from '../../web/harness/node_engine.mjs';
import { offerGpu, watchedGpu } from '../../web/harness/watched_gpu.mjs';
import { spread } from '../peers/statistics.mjs';

const here = fileURLToPath(import.meta.url);
const MARK = 'subbyte-start ';

/** Times a device's pipelines and writes; without `isAhead` nothing is compiled before it is asked for. */
function watch(device, isAhead) {
  const seen = { sync: 0, sync_ms: 0, ahead: 0, ahead_begin: Infinity, ahead_end: 0, write_begin: Infinity, write_end: 0, bytes: 0 };
  const { createComputePipeline, createComputePipelineAsync, destroy, queue } = device;
  device.createComputePipeline = (about) => {
    const begin = performance.now();
    const pipeline = createComputePipeline.call(device, about);
    seen.sync++;
    seen.sync_ms += performance.now() - begin;
    return pipeline;
  };
  device.createComputePipelineAsync = async (about) => {
    if (!isAhead) throw new Error('not before it is asked for');
    seen.ahead++;
    seen.ahead_begin = Math.min(seen.ahead_begin, performance.now());
    const pipeline = await createComputePipelineAsync.call(device, about);
    seen.ahead_end = performance.now();
    return pipeline;
  };
  const { writeBuffer } = queue;
  queue.writeBuffer = (buffer, offset, bytes) => {
    seen.write_begin = Math.min(seen.write_begin, performance.now());
    writeBuffer.call(queue, buffer, offset, bytes);
    if (bytes.byteLength < 4096) return; // a step's parameters
    seen.write_end = performance.now();
    seen.bytes += bytes.byteLength;
  };
  device.destroy = () => {
    writeSync(2, `${MARK}${JSON.stringify(seen)}\n`);
    destroy.call(device);
  };
}

async function child(folder, nPrompt) {
  const { Engine } = await nodeEngine({ device: 'webgpu' });
  const begin = performance.now();
  const engine = await Engine.create({ device: 'webgpu', fallback: false });
  const created = performance.now();
  const model = await engine.load(folder, { cache: 'off', planes: 'base' });
  const loaded = performance.now();
  const stream = model.generate('a '.repeat(nPrompt), { raw: true, maxTokens: 2, temperature: 0, ignoreEos: true });
  await stream[Symbol.asyncIterator]().next();
  const first = performance.now();
  const { ids } = await stream.result;
  const { adapter } = engine.capabilities.gpu ?? {};
  const { selfCheck } = model.info;
  await model.dispose();
  await engine.dispose();
  writeSync(1, `${JSON.stringify({ create_ms: created - begin, load_ms: loaded - created, check_ms: selfCheck.ms, first_ms: first - loaded, ids, adapter })}\n`);
}

/** A process of its own: drivers keep what they have compiled. */
async function start(folder, nPrompt, isAhead) {
  const env = { ...process.env, SUBBYTE_BENCH_AHEAD: isAhead ? '1' : '' };
  const run = spawn(process.execPath, ['--import', here, here, folder, '--prompt', nPrompt, '--child'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const told = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) run[name].setEncoding('utf8').on('data', (text) => (told[name] += text));
  const status = await new Promise((resolve) => run.on('close', resolve));
  const seen = told.stderr.split('\n').findLast((line) => line.startsWith(MARK));
  if (status !== 0 || !seen) throw new Error(`a start ended with ${status}: ${told.stderr}`);
  const { sync, sync_ms, ahead, ahead_begin, ahead_end, write_begin, write_end, bytes } = JSON.parse(seen.slice(MARK.length));
  return { ...JSON.parse(told.stdout), waited: sync, compile_ms: sync_ms, ahead, ahead_ms: ahead ? ahead_end - ahead_begin : 0, upload_ms: write_end - write_begin, bytes };
}

if (!isMainThread) {
  const { create } = await import('../../web/node_modules/webgpu/index.js');
  offerGpu(watchedGpu(create([]), (device) => watch(device, process.env.SUBBYTE_BENCH_AHEAD === '1')));
} else if (process.argv[1] === here) {
  const text = { type: 'string' };
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { rounds: { ...text, default: '5' }, prompt: { ...text, default: '20' }, child: { type: 'boolean', default: false } } });
  const [folder] = positionals;
  if (!folder) {
    process.stderr.write('usage: start.mjs FOLDER [--rounds N] [--prompt N]\n');
    process.exit(2);
  }
  if (values.child) {
    await child(folder, Number(values.prompt));
  } else {
    const starts = [];
    for (let round = 0; round < Number(values.rounds); ++round) for (const isAhead of [false, true]) starts.push({ isAhead, ...(await start(folder, values.prompt, isAhead)) });
    if (new Set(starts.map(({ ids }) => ids[0])).size !== 1) throw new Error('they do not answer the same');
    for (const isAhead of [false, true]) {
      const runs = starts.filter((one) => one.isAhead === isAhead);
      const of = (name) => spread(runs.map((one) => one[name]));
      const total = spread(runs.map((one) => one.create_ms + one.load_ms + one.first_ms));
      const { adapter, waited, ahead, bytes } = runs[0];
      const out = { adapter, ahead, waited, bytes, total_ms: total };
      for (const name of ['create_ms', 'load_ms', 'upload_ms', 'check_ms', 'first_ms', 'compile_ms', 'ahead_ms']) out[name] = of(name);
      process.stdout.write(`${JSON.stringify(out)}\n`);
    }
  }
}
