// Prompts of an exact number of tokens. Each starts with another token, because peers keep the KV cache of a prompt's prefix and would
// answer a repeated one at once.

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
