#!/usr/bin/env node
// The session shelf: text scripts, each run natively, in WebAssembly under Node or in a browser. README.md has the language.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { BrowserMissing } from '../../web/harness/program.mjs';
import { backendNames, openBackend } from './backends.mjs';
import { parse, runScript, Skip } from './script.mjs';

const usage = `usage: run.mjs [--backend ${backendNames.join('|')}] [--model PATH] [options] [SCRIPT…]
  --model PATH      what the scripts call smollm2; default: the one in the cache
  --program PATH    the native command line; default build/release/apps/cli/subbyte
  --wasm BUILD      simd, relaxed, simd-threads or relaxed-threads; default: the best that runs there
  --threads N       0 takes what is there
  --device NAME     where the model runs
  --timeout S       for one request; default 120
Without SCRIPT, every *.txt beside this file. A missing model or browser is a skip; with CI set it is a failure.`;

const here = dirname(fileURLToPath(import.meta.url));
const text = { type: 'string' };
let values;
let positionals;
try {
  ({ values, positionals } = parseArgs({
    allowPositionals: true,
    options: { backend: { ...text, default: 'native' }, model: text, program: text, wasm: text, threads: text, device: text, timeout: { ...text, default: '120' }, help: { type: 'boolean' } },
  }));
} catch (error) {
  process.stderr.write(`${error.message}\n`);
}
if (!values || values.help || !backendNames.includes(values.backend)) {
  process.stderr.write(`${usage}\n`);
  process.exit(values?.help ? 0 : 2);
}

const cache = join(process.env.SUBBYTE_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'subbyte'), 'models');
const smollm2 = resolve(values.model ?? join(cache, 'SmolLM2-135M-Instruct.Q4_1.gguf'));
const places = { model: dirname(smollm2), cache, fixtures: resolve(here, '../golden') };
const models = { smollm2: { place: 'model', file: basename(smollm2) }, 'gemma-3-270m': { place: 'cache', file: 'gemma-3-270m-q4_k_m.gguf' } };

function find(name) {
  const found = name.startsWith('fixture:') ? { place: 'fixtures', file: name.slice(8) } : models[name];
  if (!found) throw new Error(`no model is called ${name}; there are ${Object.keys(models).join(', ')} and fixture:NAME`);
  if (!existsSync(join(places[found.place], found.file))) throw new Skip(`${found.file} is not in ${found.place === 'model' ? 'its place' : `the ${found.place}`}`);
  return found;
}

const limit = Number(values.timeout) * 1000;
const options = {
  places,
  ...(values.program ? { program: resolve(values.program) } : {}),
  ...(values.wasm ? { wasm: values.wasm } : {}),
  ...(values.threads ? { threads: Number(values.threads) } : {}),
  ...(values.device ? { device: values.device } : {}),
};
let backend = null;

/** The backend, with a time limit on what it is asked; one that has run into it is not asked again. */
async function open() {
  if (backend) return backend;
  const opened = await openBackend(values.backend, options);
  backend = {
    ...opened,
    ask(request) {
      let timer;
      const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`no answer within ${values.timeout} s`)), limit)));
      return Promise.race([opened.ask(request), late]).finally(() => clearTimeout(timer));
    },
  };
  return backend;
}

async function shut() {
  const closing = backend;
  backend = null;
  await closing?.close().catch(() => {});
}

const scripts = positionals.length ? positionals : readdirSync(here).filter((name) => name.endsWith('.txt')).sort().map((name) => join(here, name));
let passed = 0;
let failed = 0;
let skipped = 0;
for (const path of scripts) {
  const name = basename(path, '.txt');
  const began = performance.now();
  const say = (how, more = '') => console.log(`${how} ${name.padEnd(24)} ${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s${more && `  ${more}`}`);
  try {
    await runScript(parse(readFileSync(path, 'utf8')), await open(), find);
    await backend.ask({ op: 'dispose' });
    passed++;
    say('pass');
  } catch (error) {
    const isSkip = error instanceof Skip || error instanceof BrowserMissing;
    if (isSkip && !process.env.CI) {
      skipped++;
      say('skip', error.message);
    } else {
      failed++;
      say('FAIL', error.message);
    }
    await shut(); // the next script begins afresh
  }
}
await shut();
console.log(`${values.backend}: ${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
process.exit(failed || !(passed || skipped) ? 1 : 0);
