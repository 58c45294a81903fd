// The quantised model of the package's tests: the golden Llama with a tokenizer of bytes, made into a base with a refinement by the package
// itself, in Node. Small enough to be made anew each time.
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { nodeEngine } from '../../harness/backend.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const VOCAB = 384; // of the golden Llama
const SPECIALS = ['<pad>', '<s>', '</s>'];

/** As GPT-2 writes bytes: those that print stand for themselves, the others for 256 and on. */
function byteLetters() {
  const prints = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(prints(byte) ? byte : next++));
}

function byteTokenizer() {
  // The model can say every id it has.
  const letters = [...SPECIALS, ...byteLetters()];
  const all = [...letters, ...Array.from({ length: VOCAB - letters.length }, (_, i) => `unused${i}`)];
  const vocab = Object.fromEntries(all.map((letter, id) => [letter, id]));
  const added = SPECIALS.map((content, id) => ({ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false }));
  return {
    version: '1.0',
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', vocab, merges: [] },
  };
}

/** What the fixture is made with; small numbers of tokens, since it is the road that is tested. */
export const OPTIONS = { bits: '2', refine: true, tokens: 2048, window: 64, seed: 7 };

export const calibration = async () => (await readFile(join(root, 'data/calibration.txt'), 'utf8')).slice(0, 6000);

/** {source, made, remove()}: the folders of the model and of what was made of it. */
export async function makeQuantised() {
  const folder = await mkdtemp(join(tmpdir(), 'subbyte-quantised-'));
  const source = join(folder, 'source');
  await mkdir(source);
  for (const name of ['config.json', 'model.safetensors']) await copyFile(join(root, 'tests/golden/llama', name), join(source, name));
  await writeFile(join(source, 'tokenizer.json'), JSON.stringify(byteTokenizer()));
  const { Engine } = await nodeEngine();
  const engine = await Engine.create();
  const { folder: made } = await engine.quantize(source, join(folder, 'made'), { ...OPTIONS, text: await calibration(), evalWindows: 1 });
  await engine.dispose();
  return { folder, source, made, remove: () => rm(folder, { recursive: true }) };
}
