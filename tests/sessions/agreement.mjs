#!/usr/bin/env node
// How often the GPU's likeliest next token is the CPU's, token by token over the same forced text: each is asked for one token behind the same
// prefix, of which the session's cache holds all but the last. Fails below --least. --exact asks a third, the scalar kernels (slow), which of
// the two is nearer to float32.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { backendNames, openBackend } from './backends.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const usage = `usage: agreement.mjs [--backend ${backendNames.join('|')}] [--device webgpu] [--tokens 128] [--prompt 16] [--text FILE] [--least 0.98] [--exact] [--program PATH] MODEL
The other side is always native, on the CPU. A model without tokenizer is forced along ids made up by a rule.`;
const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    backend: { ...text, default: 'native' }, device: { ...text, default: 'webgpu' }, tokens: { ...text, default: '128' }, prompt: { ...text, default: '16' },
    text: { ...text, default: join(here, '../../data/calibration.txt') }, least: { ...text, default: '0.98' }, program: { ...text, default: join(here, '../../build/release/apps/cli/subbyte') }, exact: { type: 'boolean' },
  },
});
if (positionals.length !== 1 || !backendNames.includes(values.backend)) {
  process.stderr.write(`${usage}\n`);
  process.exit(2);
}
const path = resolve(positionals[0]);
const nPrompt = Number(values.prompt);
const n = Number(values.tokens);
const places = { model: dirname(path) };
const program = resolve(values.program);

const open = async (name, device, engine = {}) => {
  const backend = await openBackend(name, { places, device, program, ...(name === 'native' ? {} : { threads: 1 }) });
  const ask = async (request) => {
    const answer = await backend.ask(request);
    if (answer.error) throw new Error(`${device}: ${answer.error.message} (${answer.error.code})`);
    return answer;
  };
  const { info } = await ask({ op: 'load', model: backend.find('model', basename(path)), engine });
  if (info.device !== device) throw new Error(`the model is on ${info.device}: ${info.device_why}`);
  return { ask, info, close: () => backend.close() };
};

const gpu = await open(values.backend, values.device);
const cpu = await open('native', 'cpu');
const exact = values.exact ? await open('native', 'cpu', { isa: 'scalar' }) : null;
const textIds = () => {
  const from = readFileSync(values.text, 'utf8').slice(0, 16 * (nPrompt + n));
  return JSON.parse(execFileSync(program, ['tokenize', '--json', path, from], { encoding: 'utf8', maxBuffer: 1 << 26 })).ids;
};
const ids = gpu.info.has_tokenizer ? textIds() : Array.from({ length: nPrompt + n }, (_, i) => (i * i * 31 + i * 7 + 3) % (gpu.info.vocab - 3) + 3);
if (ids.length < nPrompt + n) throw new Error(`the text has ${ids.length} tokens, and ${nPrompt + n} are needed`);

/** The likeliest token behind the first `length` ids, and its lead over the next. */
async function top({ ask }, length) {
  await ask({ op: 'start', request: { ids: ids.slice(0, length), max_tokens: 1, ignore_eos: true, top_logits: 2 } });
  const { events } = await ask({ op: 'run' });
  const [first, second] = events.find(({ type }) => type === 'token').top;
  return { id: first.id, logit: first.logit, lead: first.logit - second.logit };
}

let agreed = 0;
const nearer = { gpu: 0, cpu: 0 };
let worst = 0;
for (let i = 0; i < n; i++) {
  const [a, b] = [await top(gpu, nPrompt + i), await top(cpu, nPrompt + i)];
  if (exact) {
    const { id } = await top(exact, nPrompt + i);
    nearer.gpu += a.id === id;
    nearer.cpu += b.id === id;
  }
  if (a.id === b.id) {
    agreed++;
    worst = Math.max(worst, Math.abs(a.logit - b.logit));
  } else {
    console.log(`token ${i}: ${a.id} there, ${b.id} on the CPU, which leads by ${b.lead.toFixed(4)}`);
  }
}
const share = agreed / n;
console.log(`${basename(path)}: ${agreed} of ${n} likeliest tokens agree (${(100 * share).toFixed(1)} %); where they do, logits differ by ${worst.toExponential(1)} at most`);
if (exact) console.log(`with the scalar kernels: ${nearer.gpu} of ${n} there, ${nearer.cpu} on the CPU`);
await gpu.close();
await cpu.close();
await exact?.close();
if (share < Number(values.least)) process.exitCode = 1;
