#!/usr/bin/env node
// llama.cpp (npm node-llama-cpp, as bench/peers installs it, and its binary for the GPU) on noise in the shape that whole.mjs runs, as a GGUF.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { start_process } from '../peers/contenders/process.mjs';
import { write_random_gguf } from '../peers/gguf_random.mjs';
import { spread } from '../peers/statistics.mjs';
import { geometries } from './random_model.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { gpu: { ...text, default: 'vulkan' }, dtype: { ...text, default: 'Q4_0' }, words: text, prompt: { ...text, default: '512' }, tokens: { ...text, default: '128' }, repeats: { ...text, default: '5' } },
});
const [geometry, file] = positionals;
if (!geometries[geometry] || !file || !(values.words || existsSync(file))) {
  process.stderr.write(`usage: llama_cpp.mjs ${Object.keys(geometries).join('|')} FILE --words GGUF [--dtype Q4_0|Q2_K|Q4_K] [--gpu vulkan|cuda] [--prompt N] [--tokens N] [--repeats N]
(FILE is written when it is not there, with the 49,152 words of the GGUF --words: SmolLM2's)\n`);
  process.exit(2);
}
if (!existsSync(file)) write_random_gguf(file, values.words, { ...geometries[geometry], vocab_size: 49152 }, values.dtype);
const program = join(dirname(fileURLToPath(import.meta.url)), '../peers/contenders/llama_cpp.process.mjs');
const session = await start_process(process.execPath, [program, file, 4, 2048, values.gpu], { prompt: 'The capital of France is', n: 4 });
if (session.text !== ' is is is is') throw new Error(`it says ${JSON.stringify(session.text)} where this noise repeats the last word`);
if (session.about.gpu !== values.gpu) throw new Error(`it runs on ${session.about.gpu || 'the CPU'}, not on ${values.gpu}`);
const [nPrompt, nTokens] = [Number(values.prompt), Number(values.tokens)];
const runs = [];
for (let i = 0; i <= Number(values.repeats); ++i) {
  const ids = Array.from({ length: nPrompt }, (_, at) => 300 + ((at * 7919 + i * 104729) % 40000)); // another prompt each time: prefixes are kept
  const run = await session.complete({ ids }, nTokens + 1);
  if (i) runs.push(run);
}
await session.stop();
const out = {
  dtype: values.dtype, load_ms: Math.round(session.load_ms), about: session.about,
  prefill_tokens_per_s: spread(runs.map((r) => (1000 * r.n_prompt) / r.prefill_ms)), decode_tokens_per_s: spread(runs.map((r) => (1000 * r.n_decode) / r.decode_ms)),
};
process.stdout.write(`${JSON.stringify(out, null, 1)}\n`);
