#!/usr/bin/env node
// Runs subbyte and its peers side by side: same file, same prompts, one machine, one run. `./dev bench peers` calls this; README.md says
// what each case means.
import fs from 'node:fs';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const CONTENDERS = ['subbyte_wasm', 'subbyte_native', 'wllama2', 'wllama3', 'llama_cpp'];
const CONTEXT = 1024;
const USAGE = `usage: ./dev bench peers [--quick] [--json FILE] [--models NAME,…] [--dtypes Q4_1,Q4_0,Q8_0] [--threads 1,2] [--rounds N] [--starts N]
                         [--folders coded2,coded4] [--browsers chromium,firefox,webkit] [--busy N] [--only NAME,…]
  --quick     Q4_1 on two threads, two rounds: under four minutes
  --models    SmolLM2-135M-Instruct (default), random-1b (dtypes Q2_K, Q4_K, Q6_K, Q4_0 …)
  --folders   ours also over the same model quantised to these, beside the peers' file
  --browsers  where pages run; default chromium
  --busy      rounds of answers while a process a core computes beside them; default 0
  --only      these contenders: subbyte-wasm, subbyte-native, wllama-2.4.0, wllama-3.8.1, llama.cpp`;

const say = (text) => process.stderr.write(text + '\n');
const list = (text) => text.split(',').filter(Boolean);

function arguments_of(argv) {
  const { values } = parseArgs({ args: argv, options: {
    quick: { type: 'boolean', default: false }, json: { type: 'string' }, dtypes: { type: 'string' }, threads: { type: 'string' },
    folders: { type: 'string' }, rounds: { type: 'string' }, starts: { type: 'string' }, only: { type: 'string' }, help: { type: 'boolean', default: false },
    models: { type: 'string' }, browsers: { type: 'string' }, busy: { type: 'string', default: '0' },
  } });
  if (values.help) { console.log(USAGE); process.exit(0); }
  const of = (given, full, quick) => given ?? (values.quick ? quick : full);
  const o = {
    json: values.json, only: values.only && list(values.only),
    models: list(values.models ?? Object.keys(models)[0]), browsers: list(values.browsers ?? 'chromium'), busy: Number(values.busy),
    folders: list(of(values.folders, 'coded2,coded4', '')), dtypes: of(values.dtypes, null, 'Q4_1'), threads: list(of(values.threads, '1,2', '2')).map(Number),
    rounds: Number(of(values.rounds, 5, 2)), starts: Number(of(values.starts, 3, 2)),
  };
  const strange = [...o.models.filter((m) => !models[m]), ...o.browsers.filter((b) => !BROWSERS.includes(b))];
  if (strange.length || o.threads.some((t) => !(t >= 1)) || !(o.rounds >= 1) || !(o.starts >= 1) || !(o.busy >= 0)) { say(USAGE); process.exit(2); }
  return o;
}

/** The peers' packages, installed when they are wanted and not there. Platform binaries for GPUs (700 MB) stay away. */
function install() {
  const stamp = path.join(here, 'node_modules', '.package-lock.json');
  if (fs.existsSync(stamp) && fs.statSync(stamp).mtimeMs >= fs.statSync(path.join(here, 'package-lock.json')).mtimeMs) return;
  say('installing the peers (npm ci in bench/peers)');
  execFileSync('npm', ['ci', '--omit=optional', '--ignore-scripts', '--no-fund', '--no-audit'], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true' } });
}

/** Contenders of this run, and why others stay out. */
async function line_up({ only, browsers }) {
  const all = (await Promise.all(CONTENDERS.map((f) => import(`./contenders/${f}.mjs`)))).map((m) => m.default);
  const unknown = (only ?? []).filter((n) => !all.some((c) => c.name === n));
  if (unknown.length) { say(`no contender ${unknown.join(', ')}; there are ${all.map((c) => c.name).join(', ')}`); process.exit(2); }
  const wanted = all.filter((c) => !only || only.includes(c.name)).flatMap((c) => (c.in_browser ? browsers.map((b) => c.in_browser(b)) : [c]));
  const missing = wanted.map((c) => [c, c.missing()]).filter(([, why]) => why);
  for (const [c, why] of missing) say(`missing: ${c.name}: ${why}`);
  return { all, contenders: wanted.filter((c) => !missing.some(([m]) => m === c)), n_missing: missing.length };
}

/** One (model, dtype, threads) group: starts, proof, warm-up, then the rounds, contender by contender within each. */
async function run_group({ contenders, samples, group, options, prompt, refused }) {
  const model = models[group.model], { short, long, answer } = model.sizes;
  const key_of = (c, name, clock = 'wall') => ({ contender: c.name, ...group, case: name, clock });
  const field = [];
  const drop = async (entry, e) => {
    say(`  ${entry.c.name}: ${e.message.split('\n').slice(0, 4).join(' | ')}`);
    refused.add(entry.c.name);
    samples.refuse(entry.c.name);
    field.splice(field.indexOf(entry), 1);
    await entry.session?.stop().catch(() => {});
    await entry.arena?.close().catch(() => {});
  };
  const each = async (task) => { for (const entry of [...field]) await task(entry).catch((e) => drop(entry, e)); };
  const files = new Map(); // what is known of each: scalars take their time
  for (const c of contenders) {
    const file = c.format ? model.folder(c.format, program) : model.file(group.dtype);
    if (!files.has(file)) {
      const proof = c.format ? model.proof_of_folder(file, program) : model.proof(group.dtype, program);
      files.set(file, { file, weight_bytes: bytes_a_token(file), proof });
    }
    field.push({ c, ...files.get(file) });
  }
  await each(async (entry) => { entry.arena = await entry.c.prepare({ file: entry.file, threads: group.threads, context: CONTEXT, proof: entry.proof }); });

  for (let round = 0; round < options.starts; round++) {
    await each(async (entry) => {
      await entry.session?.stop();
      const s = (entry.session = await entry.arena.start());
      const { prompt, expects } = entry.proof;
      if (!s.text.includes(expects)) throw new Error(`answers ${JSON.stringify(s.text)} to ${JSON.stringify(prompt)}, not ${JSON.stringify(expects)}: refused`);
      if (s.about?.threads && s.about.threads !== group.threads) throw new Error(`runs ${s.about.threads} threads, ${group.threads} wanted: refused`);
      if (entry.arena.is_kept) {
        samples.add(key_of(entry.c, 'load_ms'), round, s.load_ms);
        samples.add(key_of(entry.c, 'first_token_ms'), round, s.first_token_ms);
      }
      if (round === 0) say(`  ${entry.c.name.padEnd(15)} ${JSON.stringify(s.about ?? {})} ${JSON.stringify(s.text)}`);
    });
  }
  let next = 0;
  const complete = async (session, prompt, n) => {
    const t = await session.complete(prompt, n);
    if (t.n_prompt !== prompt.ids.length || t.n_decode !== n - 1) throw new Error(`computed ${t.n_prompt} + 1 + ${t.n_decode} tokens, ${prompt.ids.length} + ${n} wanted: refused`);
    return t;
  };
  const warm_up = await prompt(next++, short);
  await each(({ session }) => complete(session, warm_up, 17));
  for (let round = 0; round < options.rounds; round++) {
    const [first, second] = [await prompt(next++, short), await prompt(next++, long)];
    await each(async ({ c, weight_bytes, session }) => {
      const t = await complete(session, first, answer + 1);
      samples.add_completion({ contender: c.name, ...group }, round, t, { prefill: 'prefill_short', decode: 'decode' });
      samples.add(key_of(c, 'weights'), round, (weight_bytes * t.n_decode) / t.decode_ms / 1e6, { how: 'bytes of the weights a token reads × tokens a second' });
      samples.add_completion({ contender: c.name, ...group }, round, await complete(session, second, 1), { prefill: 'prefill_long' });
    });
    say(`  round ${round + 1} of ${options.rounds}`);
    save();
  }
  await each(async ({ c, session }) => {
    if (session.peak_mib) samples.add(key_of(c, 'peak_mib'), 0, session.peak_mib(), { how: session.peak_how });
  });
  for (let round = 0; round < options.busy; round++) {
    const first = await prompt(next++, short);
    await each(async ({ c, session }) => {
      const t = await while_busy(() => complete(session, first, answer + 1));
      samples.add_completion({ contender: c.name, ...group }, round, t, { decode: 'decode_busy' });
    });
    say(`  busy round ${round + 1} of ${options.busy}`);
    save();
  }
  for (const entry of field) { await entry.session.stop(); await entry.arena.close(); }
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130)); // exit handlers end browsers and remove profiles
install();
const { models, vocabulary_file, bytes_a_token } = await import('./models.mjs');
const { BROWSERS } = await import('./browser.mjs');
const options = arguments_of(process.argv.slice(2));
const { Samples } = await import('./statistics.mjs');
const { print_table } = await import('./table.mjs');
const { make_prompt } = await import('./prompts.mjs');
const { build, program } = await import('./contenders/subbyte_native.mjs');
const { brotli_bytes } = await import('./payload.mjs');
const { read_gb_s, while_busy } = await import('./machine.mjs');

const samples = new Samples(), refused = new Set();
const save = () => { if (options.json) fs.writeFileSync(options.json, JSON.stringify(samples.rows(), null, 1) + '\n'); };

const { all, contenders, n_missing } = await line_up(options);
if (!contenders.length) process.exit(1);
for (const c of contenders) {
  const files = c.payload();
  if (files) samples.add({ contender: c.name, model: null, dtype: null, threads: null, case: 'payload_br_bytes', clock: 'wall' }, 0, brotli_bytes(files), { how: files.map((f) => path.basename(f)).join(' + ') });
}
for (const format of options.folders) {
  for (const c of contenders.filter((c) => c.is_ours && !c.format)) contenders.push({ ...c, format, name: `${c.name} ${format}` });
}

// Prompts are cut once, by llama.cpp's tokenizer, so that all compute the same tokens.
const tokenizer_arena = await all.find((c) => c.name === 'llama.cpp').prepare({ file: vocabulary_file(), threads: 1, context: CONTEXT, proof: { prompt: 'Once', n: 1 } });
const tokenizer = await tokenizer_arena.start();
const prompt = (index, n) => make_prompt(tokenizer, index, n);

for (const model of options.models) {
  for (const dtype of options.dtypes ? list(options.dtypes) : models[model].dtypes) {
    for (const threads of options.threads) {
      say(`${model} ${dtype}, threads ${threads}`);
      const group = { model, dtype, threads };
      samples.add({ contender: 'this machine', ...group, case: 'weights', clock: 'wall' }, 0, await read_gb_s(build, threads), { how: 'read by as many processes at once' });
      await run_group({ contenders: contenders.filter((c) => !refused.has(c.name)), samples, group, options, prompt, refused });
      save();
    }
  }
}
await tokenizer.stop();
print_table(samples, [...contenders, { name: 'this machine' }], models);
if (refused.size) say(`refused: ${[...refused].join(', ')}`);
process.exit(refused.size || n_missing ? 1 : 0);
