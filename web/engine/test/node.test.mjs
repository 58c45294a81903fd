// The package in Node. Run with: node --test web/engine/test/node.test.mjs
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { engineDist, nodeEngine } from '../../harness/backend.mjs';
import { cases, runCase } from './cases.mjs';
import { calibration, makeQuantised, OPTIONS } from './quantised.mjs';
import { startTestServer } from './server.mjs';

const { Engine } = await nodeEngine();
const quantised = await makeQuantised();
const server = await startTestServer(quantised.folder);
after(() => Promise.all([server.close(), quantised.remove()]));

const made = { options: OPTIONS, text: await calibration() };
let nTargets = 0;
const nodeTools = {
  scratch: (name = `target-${nTargets++}`) => join(quantised.folder, name),
  textOf: (folder, file) => readFile(join(folder, file), 'utf8'),
  exists: (name) => existsSync(join(quantised.folder, name)) || existsSync(join(quantised.folder, `${name}.partial`)),
};

for (const name of Object.keys(cases)) {
  test(`node: ${name}`, { timeout: 120_000 }, async () => {
    assert.deepEqual(await runCase(name, { ...nodeTools, Engine, base: server.url, isPage: false, made }), []);
  });
}

// A worker that breaks in the middle of a load: by an exception, by leaving, and by a trap that it tells of itself.
for (const [how, act] of [
  ['throws', 'throw new Error("out of order")'],
  ['exits', 'process.exit(3)'],
  ['traps', 'parentPort.postMessage({ type: "fatal", why: "unreachable" })'],
]) {
  test(`node: a worker that ${how} fails what waits for it`, { timeout: 30_000 }, async (t) => {
    const assets = await mkdtemp(join(tmpdir(), 'subbyte-broken-'));
    t.after(() => rm(assets, { recursive: true }));
    await copyFile(join(engineDist, 'subbyte-simd.wasm'), join(assets, 'subbyte-simd.wasm'));
    await writeFile(
      join(assets, 'node_worker.js'),
      `const { parentPort } = require('node:worker_threads');
       parentPort.on('message', ({ type, id }) => {
         if (type === 'init') parentPort.postMessage({ type: 'value', id, value: [] });
         else if (type === 'engine') parentPort.postMessage({ type: 'value', id, value: { threads: 1 } });
         else { ${act}; }
       });`,
    );
    await writeFile(join(assets, 'package.json'), '{"type": "commonjs"}');
    const engine = await Engine.create({ wasm: 'simd', assets: pathToFileURL(`${assets}/`) });
    await assert.rejects(engine.load(`${server.url}plain/llama`), { code: 'kWorkerFailed', retryable: true });
    await engine.dispose();
  });
}
