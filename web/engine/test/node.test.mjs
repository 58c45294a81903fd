// The package in Node. Run with: node --test web/engine/test/node.test.mjs
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
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

test('node: the lock on a folder that is being made holds as long as its process lives', { timeout: 60_000 }, async (t) => {
  const engine = await Engine.create();
  const target = nodeTools.scratch('locked');
  const lock = `${target}.partial.lock`;
  const quantize = (more) => engine.quantize(`${server.url}plain/quantised/source`, target, { ...made.options, text: made.text, evalWindows: 0, ...more });
  const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  t.after(() => other.kill());
  for (const text of [`${other.pid}\n`, `flock ${other.pid}\n`, '']) {
    await writeFile(lock, text);
    await assert.rejects(quantize(), { code: 'kTargetBusy', retryable: true });
    assert.equal(await readFile(lock, 'utf8'), text);
  }
  await writeFile(lock, `flock ${other.pid}\n`);
  other.kill('SIGKILL');
  await once(other, 'exit');
  await mkdir(`${target}.partial`);
  await writeFile(`${target}.partial/checkpoint`, 'of the command line');
  await assert.rejects(quantize(), { code: 'kTargetExists' });
  await rm(`${target}.partial/checkpoint`);
  await quantize();
  assert.deepEqual((await readdir(quantised.folder)).filter((name) => name.startsWith('locked')), ['locked']);
  await engine.dispose();
});

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
