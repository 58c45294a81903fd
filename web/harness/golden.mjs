#!/usr/bin/env node
// Golden folders (config.json, model.safetensors, golden.safetensors) through WebAssembly, as `subbyte golden` runs them natively.
import { mkdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { backends, fail, nodeEngine, openHarness, pageJob } from './backend.mjs';
import { runGolden } from './run_model.mjs';

const usage = `usage: golden.mjs [--backend ${backends.join('|')}] [--wasm BUILD] [--threads N] [--device auto|cpu|webgpu] [--dump OUTDIR] [--json] DIR…`;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: 'string', default: 'node' },
    wasm: { type: 'string' },
    threads: { type: 'string' },
    device: { type: 'string' },
    dump: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
if (!positionals.length || !backends.includes(values.backend)) {
  process.stderr.write(`${usage}\n`);
  process.exit(2);
}

let passed = 0;
let failed = 0;
function onEvent(event) {
  if (event.error) return fail(event.error);
  if (!event.golden) return;
  const report = event.golden;
  report.passed ? passed++ : failed++;
  if (event.dump) {
    mkdirSync(values.dump, { recursive: true });
    writeFileSync(join(values.dump, `${report.name}.safetensors`), typeof event.dump === 'string' ? Buffer.from(event.dump, 'base64') : event.dump);
  }
  if (values.json) return console.log(JSON.stringify(report));
  if (report.error) console.log(`FAIL ${report.name}: ${report.error.message} (${report.error.code})`);
  for (const o of report.outputs ?? []) {
    const worst = `worst |a-b|/(1+|b|) ${o.worst.toExponential(2)} (at most ${o.tolerance.toExponential(0)})`;
    console.log(`${o.passed ? 'pass' : 'FAIL'} ${report.name.padEnd(14)} ${o.name.padEnd(16)} ${String(o.n).padStart(8)} values, ${worst}`);
  }
}

const paths = positionals.map((path) => resolve(path));
const { wasm, device } = values;
const engine = { ...(wasm ? { wasm } : {}), ...(values.threads ? { threads: Number(values.threads) } : {}), ...(device ? { device, fallback: false } : {}) };
try {
  if (values.backend === 'node') {
    const { Engine } = await nodeEngine(engine);
    const folders = paths.map((path) => ({
      name: basename(path),
      source: path,
      golden: async () => new Uint8Array(await readFile(join(path, 'golden.safetensors'))),
      wantsDump: values.dump !== undefined,
    }));
    await runGolden(Engine, { engine, folders }, onEvent);
  } else {
    // Each under its own number: folders of different places may have the same name.
    const mounts = Object.fromEntries(paths.map((path, i) => [`/golden/${i}/`, dirname(path)]));
    const folders = paths.map((path, i) => ({
      name: basename(path),
      source: `/golden/${i}/${encodeURIComponent(basename(path))}`,
      wantsDump: values.dump !== undefined,
    }));
    const page = await openHarness(values.backend, { mounts, browserOptions: { gpu: device === 'webgpu' } });
    try {
      await pageJob(page, 'startGolden', { engine, folders }, onEvent);
    } finally {
      await page.close();
    }
  }
} catch (error) {
  fail(error);
}
console.log(`${passed} passed, ${failed} failed`);
if (failed || !passed) process.exitCode = 1;
