// Holds our tokenizer against npm @huggingface/tokenizers (pure JavaScript) over lines that a seeded generator makes.
//
// usage: node compare.mjs [--seed N] [--lines N] [--engine "COMMAND"] FILE...
//   FILE       a tokenizer.json, or a GGUF whose vocabulary is byte-level BPE (a tokenizer.json is made of it for the other side)
//   --engine   is given FILE, reads a JSON string a line, writes {"ids": […]} a line; "decoded" (without special tokens) is compared too
//              when it is there. Default: build/release/apps/cli/subbyte tokenize --lines --json
// Exits with 1 when any line differs.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');

const options = { seed: 1, lines: 2000, engine: join(root, 'build/release/apps/cli/subbyte') + ' tokenize --lines --json' };
const files = [];
for (let i = 2; i < process.argv.length; i++) {
  const name = process.argv[i].startsWith('--') ? process.argv[i].slice(2) : null;
  if (name === null) files.push(process.argv[i]);
  else if (name in options) options[name] = typeof options[name] === 'number' ? Number(process.argv[++i]) : process.argv[++i];
  else throw new Error(`There is no option --${name}`);
}
if (files.length === 0) {
  console.error('usage: node compare.mjs [--seed N] [--lines N] [--engine COMMAND] FILE...');
  process.exit(2);
}

async function reference() {
  for (const from of [join(here, 'x.mjs'), join(root, 'web/x.mjs'), join(process.cwd(), 'x.mjs')]) {
    try {
      const module = await import(pathToFileURL(createRequire(from).resolve('@huggingface/tokenizers')));
      return module.Tokenizer ? module : module.default;
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new Error('npm install @huggingface/tokenizers first (in tests/tokenizers, web, or the working folder)');
}

// ---- Lines

function randomFrom(seed) {  // mulberry32
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const words = "the of and to in that is was I'll don't we've SHE'D you're Hello World tokenizer naïve café über straße façade it's".split(' ');
const code = ['def f(x):\n    return x**2', 'for (int i = 0; i < n; ++i) {', '    if (a && b) return;', 'SELECT * FROM t WHERE x >= 10;',
  '{"key": [1, 2.5, null]}', '#include <vector>', 'x=1;y=2', 'a_b_c', 'https://example.org/a?b=c&d=%20e#f', '\\n\\t', '--flag=value', '<div class="a">'];
const spaces = [' ', '  ', '    ', '\t', '\n', '\n\n', '\r\n', ' \n', '\u00a0', '\u3000', '\u2003', '\u200b'];
const specials = ['<s>', '</s>', '<pad>', '<unk>', '<mask>', '[CLS]', '[SEP]', '[MASK]', '<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|im_'];
const emoji = ['😀', '👍🏽', '👩‍👩‍👧‍👦', '🇩🇪', '🧑‍🚀', '❤️', '1️⃣', '🏴󠁧󠁢󠁳󠁣󠁴󠁿'];
const scripts = [[0x400, 0x45f], [0x391, 0x3c9], [0x4e00, 0x9fa5], [0x3041, 0x3096], [0x30a1, 0x30fa], [0xac00, 0xd7a3], [0x621, 0x64a], [0x5d0, 0x5ea],
  [0x905, 0x939], [0xe01, 0xe30], [0x1e00, 0x1eff], [0xc0, 0x24f], [0x2190, 0x22ff], [0x2460, 0x2473], [0xff01, 0xff5e], [0x1d400, 0x1d454], [0x300, 0x315]];

function* makeLines(n, seed) {
  const random = randomFrom(seed);
  const below = (k) => Math.floor(random() * k);
  const pick = (list) => list[below(list.length)];
  const makers = [
    () => pick(words) + pick([' ', ' ', ', ', '. ', '! ', '? ', '-']),
    () => pick(spaces),
    () => String(below(10 ** (1 + below(9)))) + pick(['', '.', ',', ' ', '%', 'x']),
    () => { const [a, b] = pick(scripts); return String.fromCodePoint(...Array.from({ length: 1 + below(5) }, () => a + below(b - a + 1))) + pick(['', ' ']); },
    () => pick(code) + pick(spaces),
    () => pick(specials) + pick(['', '', ' ', 'x']),
    () => pick(emoji) + pick(['', ' ']),
    () => pick([...'!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~']).repeat(1 + below(3)),
    () => String.fromCodePoint(pick([1 + below(31), 0x7f, 0x80 + below(5), 0x86 + below(26)])),  // without U+0085: JavaScript's \s lacks it
  ];
  for (let i = 0; i < n; i++) {
    const kind = below(makers.length + 2);  // some lines of one kind, some mixed
    let line = '';
    for (let k = 1 + below(14); k > 0; k--) line += kind < makers.length ? makers[kind]() : pick(makers)();
    yield line;
  }
}

// ---- A GGUF's vocabulary as a tokenizer.json

function readGguf(path) {
  const file = openSync(path, 'r');
  let chunk = Buffer.alloc(0), at = 0, place = 0;
  const need = (n) => {
    while (chunk.length - at < n) {
      const more = Buffer.alloc(1 << 22), got = readSync(file, more, 0, more.length, place);
      if (got === 0) throw new Error(`${path} ends inside its metadata`);
      chunk = Buffer.concat([chunk.subarray(at), more.subarray(0, got)]);
      place += got;
      at = 0;
    }
    at += n;
    return at - n;
  };
  const u32 = () => { const p = need(4); return chunk.readUInt32LE(p); };
  const u64 = () => { const p = need(8); return Number(chunk.readBigUInt64LE(p)); };
  const text = () => { const n = u64(), p = need(n); return chunk.toString('utf8', p, p + n); };
  const sizes = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
  const value = (type) => {
    if (type === 8) return text();
    if (type === 9) { const inner = u32(), n = u64(); return Array.from({ length: n }, () => value(inner)); }
    const p = need(sizes[type]);
    return type === 4 ? chunk.readUInt32LE(p) : type === 5 ? chunk.readInt32LE(p) : type === 7 ? chunk[p] !== 0 : null;
  };
  if (u32() !== 0x46554747) throw new Error(`${path} is no GGUF`);
  u32();
  u64();
  const metadata = {};
  for (let n = u64(); n > 0; n--) { const key = text(), type = u32(); metadata[key] = value(type); }
  closeSync(file);
  return metadata;
}

function tokenizerOfGguf(path) {
  const m = readGguf(path), get = (key) => m[`tokenizer.ggml.${key}`];
  const letters = (pattern) => ({ type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false });
  const rest = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}@| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
  const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";
  const bytes = (use_regex) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
  const pre = {
    'gpt-2': [bytes(true)],
    smollm: [{ type: 'Digits', individual_digits: true }, bytes(true)],
    'llama-bpe': [letters(contractions + rest.replace('@', '{1,3}')), bytes(false)],
    qwen2: [letters(contractions + rest.replace('@', '')), bytes(false)],
  }[get('pre')];
  if (get('model') !== 'gpt2' || !pre) throw new Error(`${path}: no rule here for ${get('model')} with ${get('pre')}`);
  const tokens = get('tokens'), types = get('token_type') ?? [];
  const added = tokens.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: types[id] === 3 }))
    .filter(({ id }) => types[id] === 3 || types[id] === 4);
  const bos = get('add_bos_token') ? [{ SpecialToken: { id: 'bos', type_id: 0 } }] : [];
  return {
    version: '1.0', truncation: null, padding: null, added_tokens: added, normalizer: get('pre') === 'qwen2' ? { type: 'NFC' } : null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: pre },
    post_processor: bos.length === 0 ? null : { type: 'TemplateProcessing', single: [...bos, { Sequence: { id: 'A', type_id: 0 } }], pair: [],
      special_tokens: { bos: { id: 'bos', ids: [get('bos_token_id')], tokens: [tokens[get('bos_token_id')]] } } },
    decoder: bytes(true),
    model: { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false,
      ignore_merges: get('pre') === 'llama-bpe', vocab: Object.fromEntries(tokens.map((t, id) => [t, id])), merges: get('merges') },
  };
}

// Where the other side is known not to do what the real (Rust) tokenizers do, it is told what they mean: its Digits knows ASCII digits only.
// Differences that stay: its unigram breaks ties between equal scores the other way round, it decodes </w> as a space, it lower-cases a
// word's last Σ to ς.
function asMeant(component) {
  if (Array.isArray(component)) return component.map(asMeant);
  if (component?.type === 'Sequence') return { ...component, pretokenizers: asMeant(component.pretokenizers) };
  if (component?.type !== 'Digits') return component;
  return { type: 'Split', pattern: { Regex: component.individual_digits ? '\\p{N}' : '\\p{N}+' }, behavior: 'Isolated', invert: false };
}

// ---- The comparison

const { Tokenizer } = await reference();
let failed = false;
for (const file of files) {
  const json = file.endsWith('.gguf') ? tokenizerOfGguf(file) : JSON.parse(readFileSync(file, 'utf8'));
  const theirs = new Tokenizer({ ...json, pre_tokenizer: asMeant(json.pre_tokenizer) }, {});
  const lines = [...makeLines(options.lines, options.seed)];
  const [command, ...args] = options.engine.split(' ');
  const ours = spawnSync(command, [...args, file], { input: lines.map((l) => JSON.stringify(l) + '\n').join(''), encoding: 'utf8', maxBuffer: 1 << 30 });
  if (ours.status !== 0) throw new Error(`${options.engine} ${file} failed: ${ours.stderr || ours.error}`);
  const answers = ours.stdout.split('\n').filter(Boolean).map((l) => JSON.parse(l));
  let different = 0;
  lines.forEach((line, i) => {
    // What the other side cannot spell at all it gives no id; we leave such characters out too.
    const ids = theirs.encode(line).ids.filter((id) => id !== undefined && id !== null);
    const same = JSON.stringify(ids) === JSON.stringify(answers[i]?.ids);
    const decoded = ids.length ? answers[i]?.decoded : undefined;
    const text = decoded === undefined || json.model.end_of_word_suffix ? undefined : theirs.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
    if (same && (text === undefined || text === decoded)) return;
    if (++different > 5) return;
    console.log(`${file}: ${JSON.stringify(line)}\n  theirs ${JSON.stringify(same ? text : ids)}\n  ours   ${JSON.stringify(same ? decoded : answers[i]?.ids)}`);
  });
  console.log(`${file}: ${lines.length} lines, ${different} different`);
  failed ||= different > 0;
}
process.exit(failed ? 1 : 0);
