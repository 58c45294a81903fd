// What the package promises, as cases that run alike in Node and in a page. Each gets { Engine, base, isPage, check } with check.equal(…)
// and check.ok(…). The model is a tiny Llama without a tokenizer, so prompts are ids.

import { caught, pageTools, PROMPT, run } from './case_tools.mjs';
import { quantisedCases } from './quantised_cases.mjs';

async function withModel({ Engine, base }, work, options = {}) {
  const engine = await Engine.create(options.engine);
  try {
    const model = await engine.load(`${base}${options.path ?? 'plain/llama'}`, { cache: 'off', ...options.load });
    return await work(model, engine);
  } finally {
    await engine.dispose();
  }
}

const answer = async (model, options) => (await model.generate(PROMPT, { maxTokens: 8, ...options }).result).ids;

// Node has none, nor has a private window (which WebKit's automation is): there the same loads simply come over the network again.
const hasStorage = () => navigator.storage?.getDirectory?.().then(() => true, () => false) ?? false;

export const cases = {
  async 'says what it picked and why'({ Engine, check }) {
    const engine = await Engine.create();
    const { build, threads, threadsWhy, buildWhy, families } = engine.capabilities;
    check.ok(['simd', 'relaxed', 'simd-threads', 'relaxed-threads'].includes(build), build);
    check.ok(build === 'relaxed-threads' || buildWhy.length > 0, 'a lesser build has its reasons');
    check.ok(threads >= 1 && threadsWhy.length > 0, threadsWhy);
    check.ok(families.includes('llama'), String(families));
    await engine.dispose();
  },

  async 'without a GPU an engine starts one worker, not one to look for it and another'({ Engine, isPage, check }) {
    if (!isPage || (await navigator.gpu?.requestAdapter())) return;
    const Real = window.Worker;
    let n = 0;
    window.Worker = class extends Real {
      constructor(...about) {
        super(...about);
        n++;
      }
    };
    try {
      const engine = await Engine.create({ threads: 1 });
      check.equal(n, 1);
      check.ok(/adapter|WebGPU/.test(engine.capabilities.deviceWhy), engine.capabilities.deviceWhy);
      await engine.dispose();
    } finally {
      window.Worker = Real;
    }
  },

  async 'measures once how many threads answer soonest'({ Engine, check }) {
    for (const retune of [true, false]) {
      const engine = await Engine.create({ device: 'cpu', retune });
      const { threads, threadsWhy, measured } = engine.capabilities;
      await engine.dispose();
      if (!/measured/.test(threadsWhy)) return check.equal(measured.length, 0); // a page without threads, or Node
      if (retune || !(await hasStorage())) check.ok(measured.some((m) => m.threads === threads) && measured.every((m) => m.answerNs > 0), JSON.stringify(measured));
      else check.equal(measured.length, 0);
    }
  },

  async 'every build that runs here answers alike'(t) {
    const seen = [];
    for (const wasm of ['simd', 'relaxed', 'simd-threads', 'relaxed-threads']) {
      try {
        seen.push(String(await withModel(t, (model) => answer(model), { engine: { wasm } })));
      } catch (error) {
        t.check.equal(error.code, 'kWasmUnsupported');
      }
    }
    t.check.ok(seen.length >= 1 && new Set(seen).size === 1, seen.join(' | '));
  },

  async 'parts, result and usage agree'(t) {
    await withModel(t, async (model) => {
      const stream = model.generate(PROMPT, { maxTokens: 6, ignoreEos: true });
      const ids = [];
      for await (const part of stream) ids.push(part.id);
      const { ids: all, usage, finishReason } = await stream.result;
      t.check.equal(ids.filter((id) => id !== null).join(), all.join());
      t.check.equal(finishReason, 'length');
      t.check.equal(usage.promptTokens, PROMPT.length);
      t.check.equal(usage.completionTokens, 6);
    });
  },

  async 'a second answer while one runs is refused, the first goes on'(t) {
    await withModel(t, async (model) => {
      const first = model.generate(PROMPT, { maxTokens: 20, ignoreEos: true });
      const refused = await caught(() => model.generate(PROMPT).result);
      t.check.equal(refused.code, 'kSessionBusy');
      t.check.ok(refused.retryable && refused.hint.length > 0, 'it says what to do');
      t.check.equal((await first.result).ids.length, 20);
      t.check.equal((await answer(model)).length, 8);
    });
  },

  async 'abort rejects with an AbortError, and the session is ready at once'(t) {
    await withModel(t, async (model) => {
      const before = String(await answer(model));
      for (let i = 0; i < 5; i++) {
        const stop = new AbortController();
        const stream = model.generate(PROMPT, { maxTokens: 200, ignoreEos: true, signal: stop.signal });
        let n = 0;
        const error = await caught(async () => {
          for await (const _ of stream) if (++n === 3) stop.abort();
        });
        t.check.equal(error.name, 'AbortError');
        t.check.equal((await caught(() => stream.result)).name, 'AbortError');
        t.check.equal(String(await answer(model)), before);
      }
      const never = AbortSignal.abort();
      t.check.equal((await caught(() => model.generate(PROMPT, { signal: never }).result)).name, 'AbortError');
      t.check.equal(String(await answer(model)), before);
    });
  },

  async 'leaving the loop cancels'(t) {
    await withModel(t, async (model) => {
      const stream = model.generate(PROMPT, { maxTokens: 200, ignoreEos: true });
      for await (const part of stream) if (part.id !== null) break;
      t.check.equal((await answer(model)).length, 8);
      t.check.ok((await stream.result).ids.length >= 1, 'the result has what came');
      // So small a model may have ended before the loop was left; this one cannot have.
      const cancelled = model.generate(PROMPT, { maxTokens: 200, ignoreEos: true });
      cancelled.cancel();
      t.check.equal((await answer(model)).length, 8);
      t.check.equal((await cancelled.result).finishReason, 'cancelled');
    });
  },

  async 'bad options are named, with the nearest or the range'(t) {
    const unknown = await caught(() => t.Engine.create({ thread: 2 }));
    t.check.equal(unknown.code, 'kOptionUnknown');
    t.check.ok(unknown.hint.includes('threads'), unknown.hint);
    t.check.equal((await caught(() => t.Engine.create({ threads: -1 }))).code, 'kOptionInvalid');
    await withModel(t, async (model) => {
      t.check.equal((await caught(() => model.generate(PROMPT, { temprature: 1 }).result)).code, 'kOptionUnknown');
      for (const bad of [{ maxTokens: 0 }, { maxTokens: -1 }, { temperature: NaN }, { topP: 0 }, { topK: 1.5 }]) {
        t.check.equal((await caught(() => model.generate(PROMPT, bad).result)).code, 'kOptionInvalid', JSON.stringify(bad));
      }
      t.check.equal((await caught(() => model.generate([]).result)).code, 'kPromptEmpty');
      t.check.equal((await caught(() => model.generate([1e6]).result)).code, 'kTokenOutside');
      t.check.equal((await answer(model)).length, 8);
    });
  },

  async 'load, answer, dispose ten times: the bytes come back'(t) {
    const engine = await t.Engine.create();
    const after = [];
    for (let i = 0; i < 10; i++) {
      const model = await engine.load(`${t.base}plain/llama`, { cache: 'off' });
      await answer(model);
      const { current, wasmBytes } = await model.memory();
      after.push(`${current} ${wasmBytes}`);
      await model.dispose();
      t.check.equal((await caught(() => model.generate(PROMPT).result)).code, 'kSessionClosed');
    }
    t.check.equal(after[9].split(' ')[1], after[0].split(' ')[1]);
    await engine.dispose();
    t.check.equal((await caught(() => engine.load(`${t.base}plain/llama`))).code, 'kSessionClosed');
  },

  async 'two models at once'({ Engine, base, check }) {
    const engine = await Engine.create();
    const [a, b] = await Promise.all(['llama', 'qwen2'].map((name) => engine.load(`${base}plain/${name}`, { cache: 'off' })));
    const [one, two] = await Promise.all([answer(a), answer(b)]);
    check.equal(`${one.length} ${two.length}`, '8 8');
    check.equal(`${a.info.family} ${b.info.family}`, 'llama qwen');
    await engine.dispose();
  },

  async 'progress rises to the end'(t) {
    const seen = [];
    await withModel(t, async () => {}, { load: { onProgress: (progress) => seen.push(progress) } });
    const last = seen.at(-1);
    t.check.equal(last.phase, 'ready');
    t.check.equal(last.loadedBytes, last.totalBytes);
    t.check.ok(seen.every((p, i) => i === 0 || p.loadedBytes >= seen[i - 1].loadedBytes || p.phase !== seen[i - 1].phase), JSON.stringify(seen));
  },

  async 'servers without lengths or ranges, and one that was busy'(t) {
    const good = String(await withModel(t, (model) => answer(model)));
    for (const kind of ['nolength', 'noranges', 'busy']) {
      t.check.equal(String(await withModel(t, (model) => answer(model), { path: `${kind}/llama` })), good, kind);
    }
  },

  async 'a cut download is taken up where it broke'(t) {
    const good = String(await withModel(t, (model) => answer(model)));
    t.check.equal(String(await withModel(t, (model) => answer(model), { path: 'cut/llama' })), good);
    const requests = await (await fetch(`${t.base}requests`)).json();
    const ranges = requests.filter(({ path }) => path === '/cut/llama/model.safetensors').map(({ range }) => range);
    // What was read is never asked for again; but a browser may give up the bytes that came just before a cut, all of an answer's even.
    const starts = ranges.map((range) => Number(/bytes=(\d+)-/.exec(range)?.[1] ?? 0));
    t.check.ok(starts.at(-1) > 0 && starts.every((start, i) => i === 0 || start >= starts[i - 1]), String(ranges));
  },

  async 'what cannot be had says so'(t) {
    const load = (path) => caught(() => withModel(t, async () => {}, { path }));
    const cut = await load('cutnoranges/llama');
    t.check.equal(cut.code, 'kDownloadFailed');
    t.check.ok(cut.retryable, 'retryable');
    t.check.equal((await load('alwayscut/llama')).code, 'kDownloadFailed');
    t.check.equal((await load('refused/llama')).code, 'kHttpStatus');
    t.check.equal((await load('plain/none.gguf')).code, 'kHttpStatus');
    t.check.equal((await load('plain/none')).code, 'kFileMissing');
    t.check.equal((await load('plain/llama/model.safetensors')).code, 'kNotAModel');
    const nobody = await caught(() => withModel({ ...t, base: 'http://127.0.0.1:9/' }, async () => {}));
    t.check.equal(nobody.code, 'kDownloadFailed');
    t.check.ok(nobody.hint.length > 0 && nobody.cause instanceof Error, 'a hint and a cause');
  },

  async 'a load can be aborted, and the engine loads the next'({ Engine, base, check }) {
    const engine = await Engine.create();
    const stop = new AbortController();
    const error = await caught(() =>
      engine.load(`${base}plain/llama`, { cache: 'off', signal: stop.signal, onProgress: () => stop.abort() }),
    );
    check.equal(error.name, 'AbortError');
    const model = await engine.load(`${base}plain/llama`, { cache: 'off' });
    check.equal((await answer(model)).length, 8);
    await engine.dispose();
  },

  async 'blobs: files of a folder'({ Engine, base, check }) {
    const engine = await Engine.create();
    const files = await Promise.all(
      ['config.json', 'model.safetensors'].map(async (name) => new File([await (await fetch(`${base}plain/llama/${name}`)).blob()], name)),
    );
    const model = await engine.load(files);
    check.equal((await answer(model)).length, 8);
    check.equal((await caught(() => engine.load([]))).code, 'kArgumentInvalid');
    check.equal((await caught(() => engine.load(new Blob(['no model'])))).code, 'kNotAModel');
    await engine.dispose();
  },

  async 'golden outputs, with a dump'(t) {
    await withModel(t, async (model) => {
      const bytes = new Uint8Array(await (await fetch(`${t.base}plain/llama/golden.safetensors`)).arrayBuffer());
      const report = await model.golden(bytes);
      t.check.ok(report.passed, JSON.stringify(report.outputs));
      t.check.ok(report.dump.length > 1000, `${report.dump.length} bytes`);
      t.check.equal((await caught(() => model.golden(new Uint8Array(3)))).name, 'SubbyteError');
    });
  },

  async 'a second visit asks the network nothing'({ Engine, base, isPage, check }) {
    if (!isPage || !(await hasStorage())) return;
    const count = async () => (await (await fetch(`${base}requests`)).json()).filter(({ path }) => path.startsWith('/plain/gpt2/')).length;
    const engine = await Engine.create();
    await (await engine.load(`${base}plain/gpt2`)).dispose();
    const once = await count();
    check.ok(once > 0, 'the first visit does');
    const seen = [];
    const model = await engine.load(`${base}plain/gpt2`, { onProgress: (progress) => seen.push(progress) });
    check.equal((await answer(model)).length, 8);
    const kept = await count();
    check.equal(kept, once);
    check.ok(seen.at(-1).isLocal, 'it says that the bytes are local');
    await (await engine.load(`${base}plain/gpt2`, { cache: 'reload' })).dispose();
    check.ok((await count()) > kept, 'reload does');
    await engine.dispose();
    const names = [];
    for await (const name of (await (await navigator.storage.getDirectory()).getDirectoryHandle('subbyte')).keys()) names.push(name);
    check.ok(names.length > 0 && names.every((name) => !name.includes('.')), String(names));
  },

  async 'a cut download leaves nothing half in storage'({ Engine, base, isPage, check }) {
    if (!isPage || !(await hasStorage())) return;
    const engine = await Engine.create();
    check.equal((await caught(() => engine.load(`${base}cutnoranges/qwen3`))).code, 'kDownloadFailed');
    await engine.dispose();
    const names = [];
    for await (const name of (await (await navigator.storage.getDirectory()).getDirectoryHandle('subbyte')).keys()) names.push(name);
    check.ok(names.every((name) => !name.includes('.')), String(names));
  },

  ...quantisedCases,
};

export const runCase = (name, t) => run(cases[name], { ...pageTools, ...t });
