// Prompts of an exact number of tokens. Each starts with another token, because peers keep the KV cache of a prompt's prefix and would
// answer a repeated one at once.

import { execFileSync } from 'node:child_process';

const SUBJECTS = ['The sailor', 'A young engineer', 'My neighbour', 'The old teacher', 'Our guide', 'Every traveller', 'The baker', 'A quiet child'];
const VERBS = ['followed', 'painted', 'remembered', 'repaired', 'described', 'carried', 'watched', 'measured'];
const OBJECTS = ['the narrow river', 'a wooden bridge', 'the market square', 'an early train', 'the northern lights', 'a broken clock', 'the long letter'];
const ENDS = ['before the storm.', 'while it was raining.', 'with great patience.', 'near the harbour.', 'after the harvest.', 'for the first time.'];
const OPENINGS = ['Yesterday', 'Once', 'Later', 'However', 'Today', 'Perhaps', 'Sometimes', 'Finally', 'Suddenly', 'Because', 'Although', 'Meanwhile',
  'During', 'Under', 'Beyond', 'Without', 'Between', 'Across', 'Among', 'Since', 'While', 'Where', 'There', 'Here', 'Many', 'Several', 'Three', 'Seven',
  'North', 'South', 'Winter', 'Summer'];

/** A small linear congruential generator: the same prompts in every run. */
function picker(seed) {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return (list) => list[(state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % 65521 % list.length];
}

function text_of(index, n_words) {
  const pick = picker(index + 1);
  let out = OPENINGS[index % OPENINGS.length];
  for (let words = 1; words < n_words; words += 8) out += ` ${pick(SUBJECTS)} ${pick(VERBS)} ${pick(OBJECTS)} ${pick(ENDS)}`;
  return out;
}

/** Prompt number `index` of exactly `n` tokens, as {ids, text} that mean the same: some contenders take ids, some only text. `tokenizer`
 * ({tokenize, detokenize}) is any contender's, they share the model's vocabulary. */
export async function make_prompt(tokenizer, index, n) {
  for (let seed = index; seed < index + 100 * OPENINGS.length; seed += OPENINGS.length) { // a cut can fall where the text would not cut again
    const ids = (await tokenizer.tokenize(text_of(seed, 2 * n))).slice(0, n);
    const text = await tokenizer.detokenize(ids);
    const again = await tokenizer.tokenize(text);
    if (again.length === n && again.every((id, i) => id === ids[i])) return { ids, text };
  }
  throw new Error(`no prompt ${index} of exactly ${n} tokens`);
}

/** What proves a folder of few bits, of which two may not know Paris: how the scalar kernels, which are exact, begin their answer. */
export function proof_of_folder(folder, program) {
  const { prompt, n } = proof_of('coded');
  const options = ['--raw', '--temperature', '0', '--max-tokens', '3', '--isa', 'scalar', '--device', 'cpu', '--threads', '1'];
  const expects = execFileSync(program, ['run', folder, '--prompt', prompt, ...options], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return { prompt, expects: expects.trim(), n };
}

/** The answer that proves a contender before it is timed. As Q4_0 this small model knows Paris only with an example before it (without:
 * "approximately 310,000" or worse, in llama.cpp too), so there the prompt has one. */
export function proof_of(dtype) {
  const prompt = 'The capital of France is';
  return { prompt: dtype === 'Q4_0' ? `The capital of Germany is Berlin. ${prompt}` : prompt, expects: 'Paris', n: 10 };
}
