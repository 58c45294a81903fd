#!/usr/bin/env node
// One prompt through the engine, without a person: in a headless browser or in Node. Tokens go to stdout as they come.
import { parseArgs } from 'node:util';

import { backends, fail, modelMount, nodeEngine, openHarness, pageJob } from './backend.mjs';
import { runModel } from './run_model.mjs';

const usage = `usage: run.mjs --prompt TEXT --model PATH [options]
  --backend ${backends.join('|')}   default chromium
  --max-tokens N                  default 256
  --raw                           continue the prompt as plain text, without the chat template
  --json                          end with one line of JSON: text, ids, speeds, memory
  --wasm auto|simd|relaxed|simd-threads|relaxed-threads
  --threads N                     0 takes what is there
  --device auto|cpu|webgpu
  --context N, --temperature X, --top-k N, --top-p X, --min-p X, --repetition-penalty X, --seed N, --stop TEXT (may repeat)
  --no-isolation                  serve the page without the headers that threads need
  --verbose                       progress and the page's console on stderr`;

const text = { type: 'string' };
const flag = { type: 'boolean', default: false };
let values;
try {
  ({ values } = parseArgs({
    options: {
      prompt: text, model: text, backend: { ...text, default: 'chromium' }, 'max-tokens': text, raw: flag, json: flag, wasm: text, threads: text, device: text,
      context: text, planes: text, temperature: text, 'top-k': text, 'top-p': text, 'min-p': text, 'repetition-penalty': text, seed: text,
      stop: { ...text, multiple: true }, 'ignore-eos': flag, 'no-isolation': flag, verbose: flag, help: flag,
    },
  }));
} catch (error) {
  process.stderr.write(`${error.message}\n${usage}\n`);
  process.exit(2);
}
if (values.help || values.prompt === undefined || !values.model || !backends.includes(values.backend)) {
  process.stderr.write(`${usage}\n`);
  process.exit(values.help ? 0 : 2);
}

const number = (name) => (values[name] === undefined ? undefined : Number(values[name]));
const given = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
const job = {
  backend: values.backend,
  prompt: values.prompt,
  engine: given({ wasm: values.wasm, threads: number('threads'), device: values.device }),
  // All planes from the start: the same prompt gives the same answer.
  load: given({ context: number('context'), planes: values.planes ?? 'full', cache: 'off' }),
  generate: given({
    raw: values.raw,
    maxTokens: number('max-tokens'),
    temperature: number('temperature'),
    topK: number('top-k'),
    topP: number('top-p'),
    minP: number('min-p'),
    repetitionPenalty: number('repetition-penalty'),
    seed: number('seed'),
    stop: values.stop,
    ignoreEos: values['ignore-eos'] || undefined,
  }),
};

function onEvent(event) {
  if (event.text) process.stdout.write(event.text);
  else if (event.error) fail(event.error);
  else if (event.progress && values.verbose) process.stderr.write(`${JSON.stringify(event.progress)}\n`);
  else if (event.capabilities && values.verbose) process.stderr.write(`${JSON.stringify(event.capabilities)}\n`);
  else if (event.result) {
    const r = event.result;
    process.stdout.write('\n');
    if (values.json) return void process.stdout.write(`${JSON.stringify(r)}\n`);
    process.stderr.write(
      `${r.backend}, ${r.device} (${r.build}): prompt ${r.prompt_tokens} tokens at ${r.prefill_tokens_per_s.toFixed(1)}/s, answer ${r.tokens} tokens ` +
        `at ${r.decode_tokens_per_s.toFixed(1)}/s, first token ${r.first_token_ms.toFixed(0)} ms, load ${r.load_ms.toFixed(0)} ms\n`,
    );
  }
}

try {
  if (values.backend === 'node') {
    const { Engine } = await nodeEngine(job.engine);
    await runModel(Engine, { ...job, source: values.model }, onEvent);
  } else {
    const { mounts, url } = modelMount(values.model);
    const page = await openHarness(values.backend, {
      mounts,
      serverOptions: { isolation: !values['no-isolation'] },
      browserOptions: { gpu: values.device === 'webgpu', onLog: (level, line) => values.verbose && process.stderr.write(`${level}: ${line}\n`) },
    });
    try {
      await pageJob(page, 'startPrompt', { ...job, source: url }, onEvent);
    } finally {
      await page.close();
    }
  }
} catch (error) {
  fail(error);
}
