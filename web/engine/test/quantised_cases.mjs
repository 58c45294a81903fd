// What the package promises of quantised folders: base and refinement, storage by component, and making one. Cases as in cases.mjs.
import { caught, PROMPT } from './case_tools.mjs';

const MADE = 'quantised/made';
const LONG = { maxTokens: 200, ignoreEos: true };

/** From an empty cache: what it holds was computed with the planes of its time. */
async function answer(model) {
  await model.reset();
  return String((await model.generate(PROMPT, { maxTokens: 16, ignoreEos: true }).result).ids);
}

async function withMade({ Engine, base }, work, options = {}) {
  const engine = await Engine.create();
  try {
    return await work(await engine.load(`${base}${options.weather ?? 'plain'}/${MADE}`, { cache: 'off', ...options.load }), engine);
  } finally {
    await engine.dispose();
  }
}

const fromScratch = (t, planes) => withMade(t, (model) => answer(model), { load: { planes } });

const asked = async ({ base }, path) => (await (await fetch(`${base}requests`)).json()).filter((request) => request.path.startsWith(path));

async function storage() {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle('subbyte', { create: true });
  return { folder, remove: async () => root.removeEntry('subbyte', { recursive: true }) };
}

const hasStorage = () => navigator.storage?.getDirectory?.().then(() => true, () => false) ?? false;

export const quantisedCases = {
  async 'the base answers while the refinement is on its way, which comes in between two tokens'(t) {
    const [base, full] = [await fromScratch(t, 'base'), await fromScratch(t, 'full')];
    t.check.ok(base !== full, 'the two sets answer alike: this case would prove nothing');
    const phases = [];
    const load = { onProgress: ({ phase }) => phases.at(-1) !== phase && phases.push(phase) };
    await withMade(t, async (model) => {
      t.check.equal(model.planes, 'base');
      t.check.equal(await answer(model), base);
      let refinedAt = '';
      let isAnswering = false;
      model.addEventListener('refined', ({ detail }) => (refinedAt = `${detail.planes} ${isAnswering}`));
      const { bpw } = model.info;
      void fetch(`${t.base}release`);
      for (let i = 0; !refinedAt && i < 100; i++) {
        isAnswering = true;
        const { ids, finishReason } = await model.generate(PROMPT, LONG).result;
        isAnswering = false;
        t.check.equal(`${ids.length} ${finishReason}`, '200 length', 'no token is lost');
      }
      await model.refined;
      t.check.equal(refinedAt, 'full true');
      t.check.equal(model.planes, 'full');
      t.check.ok(model.info.bpw > bpw + 1, `${bpw} → ${model.info.bpw} bits a weight`);
      t.check.equal(await answer(model), full);
    }, { weather: 'held', load });
    t.check.equal(phases.slice(-3).join(), 'ready,refinement,ready');
  },

  async 'the conversation survives: what the cache holds is not computed again'(t) {
    await withMade(t, async (model) => {
      const chat = [...PROMPT];
      chat.push(...(await model.generate(chat, { maxTokens: 8, ignoreEos: true }).result).ids);
      const before = await model.context();
      await model.refine();
      t.check.equal(JSON.stringify(await model.context()), JSON.stringify(before));
      const { ids } = await model.generate(PROMPT, { maxTokens: 8, ignoreEos: true }).result;
      t.check.equal(ids.length, 8);
    }, { load: { planes: 'base' } });
  },

  async 'a refinement is given back in its order, with its bytes, and comes back'(t) {
    const [base, full] = [await fromScratch(t, 'base'), await fromScratch(t, 'full')];
    const index = await (await fetch(`${t.base}plain/${MADE}/subbyte.index.json`)).json();
    await withMade(t, async (model) => {
      const heard = [];
      model.addEventListener('dropped', ({ detail }) => heard.push(`${detail.planes} ${detail.why}`));
      t.check.equal(model.planes, 'full');
      const before = (await model.memory()).byTag.weights.current;
      const some = await model.dropRefinement({ bytes: 1 });
      t.check.equal(model.planes, 'partial');
      const first = index.matrices.find(({ name }) => name === index.give_back[0]).rows.map(([name]) => name);
      const unrefined = (await model.tensors()).filter(({ dtype }) => dtype === 'coded2').map(({ name }) => name);
      t.check.equal(unrefined.sort().join(), first.sort().join());
      const rest = await model.dropRefinement();
      t.check.equal(model.planes, 'base');
      const freed = before - (await model.memory()).byTag.weights.current;
      t.check.ok(some.freedBytes > 0 && rest.freedBytes > 0 && freed >= some.freedBytes + rest.freedBytes, `${freed} of ${some.freedBytes} + ${rest.freedBytes}`);
      t.check.equal((await model.dropRefinement()).freedBytes, 0);
      t.check.equal(await answer(model), base);
      await model.refine();
      t.check.equal((await model.memory()).byTag.weights.current, before);
      t.check.equal(await answer(model), full);
      await model.dropRefinement({ bytes: 1 });
      await Promise.all([model.refine(), model.refine()]); // what is missing, and once
      t.check.equal(await answer(model), full);
      t.check.equal(heard.join(), 'partial asked,base asked,partial asked');
      t.check.equal((await caught(() => model.dropRefinement({ bytes: -1 }))).code, 'kOptionInvalid');
    }, { load: { planes: 'full' } });
  },

  async 'under a memory limit a refinement stays away, or goes while the model answers'(t) {
    const bytes = await withMade(t, async (model) => (await model.memory()).current, { load: { planes: 'full' } });
    await withMade(t, async (model) => {
      t.check.equal((await caught(() => model.refined)).code, 'kMemoryExhausted');
      t.check.equal(model.planes, 'base');
    }, { load: { memoryLimit: bytes - 10_000 } });
    await withMade(t, async (model) => {
      const dropped = new Promise((resolve) => model.addEventListener('dropped', ({ detail }) => resolve(detail)));
      const { ids } = await model.generate(PROMPT, LONG).result; // its cache grows past the limit
      t.check.equal(ids.length, 200);
      const { why, planes } = await dropped;
      t.check.equal(why, 'memory');
      t.check.ok(planes !== 'full', planes);
    }, { load: { planes: 'full', memoryLimit: bytes + 10_000 } });
  },

  async 'without a refinement there is none to fetch'({ Engine, base, check }) {
    const engine = await Engine.create();
    const model = await engine.load(`${base}plain/llama`, { cache: 'off' });
    await model.refined;
    check.equal(model.planes, 'full');
    check.equal((await caught(() => model.refine())).code, 'kRefinementMissing');
    check.equal((await model.dropRefinement()).freedBytes, 0);
    await engine.dispose();
  },

  async 'shards in all weathers'(t) {
    const full = await fromScratch(t, 'full');
    for (const weather of ['nolength', 'noranges', 'busy', 'cut']) {
      t.check.equal(await withMade(t, (model) => answer(model), { weather, load: { planes: 'full' } }), full, weather);
    }
    const load = (weather) => caught(() => withMade(t, async () => {}, { weather, load: { planes: 'full' } }));
    t.check.equal((await load('cutnoranges')).code, 'kDownloadFailed');
    t.check.equal((await load('alwayscut')).code, 'kDownloadFailed');
  },

  async 'a damaged shard is refused by its hash, and can be fetched again'(t) {
    const [base, full] = [await fromScratch(t, 'base'), await fromScratch(t, 'full')];
    const load = { planes: 'full', cache: 'default' };
    const error = await caught(() => withMade(t, async () => {}, { weather: 'damaged', load }));
    t.check.equal(`${error.code} ${error.retryable}`, 'kHashMismatch true');
    t.check.ok(String(error.fields.component).length > 0, error.message);
    t.check.equal(await withMade(t, (model) => answer(model), { weather: 'damaged', load }), full);
    await withMade(t, async (model) => {
      const told = new Promise((resolve) => model.addEventListener('refinementfailed', ({ detail }) => resolve(detail.error)));
      const refused = await caught(() => model.refined);
      t.check.equal(refused.code, 'kHashMismatch');
      t.check.equal((await told).code, 'kHashMismatch');
      t.check.equal(model.planes, 'base');
      t.check.equal(await answer(model), base);
      await model.refine();
      t.check.equal(await answer(model), full);
    }, { weather: 'damagedrefinement', load: { cache: 'off' } });
  },

  async 'dropRefinement ends one that is still coming, and so does dispose'(t) {
    await withMade(t, async (model) => {
      const coming = caught(() => model.refine());
      await model.dropRefinement();
      t.check.equal((await coming).name, 'AbortError');
      t.check.equal(model.planes, 'base');
      const again = caught(() => model.refine());
      await model.dispose();
      t.check.ok(['AbortError', 'SubbyteError'].includes((await again).name), 'it ends');
    }, { load: { planes: 'base' } });
  },

  async 'components are kept by their hash: only what is missing or damaged is fetched'(t) {
    if (!t.isPage || !(await hasStorage())) return;
    await (await storage()).remove();
    const path = `/plain/${MADE}/`;
    const shards = async () => (await asked(t, path)).filter((request) => request.path.endsWith('.safetensors'));
    const load = { planes: 'full', cache: 'default' };
    const full = await withMade(t, (model) => answer(model), { load });
    const once = (await shards()).length;
    t.check.ok(once > 0, 'the first visit asks for shards');
    const again = (from) => withMade({ ...t, base: `${t.base}` }, (model) => answer(model), { load, weather: from });
    t.check.equal(await again('plain'), full);
    t.check.equal((await shards()).length, once, 'a second visit asks for none');
    // From another address the index is asked for, the components are here.
    const elsewhere = async () => (await asked(t, `/noranges/${MADE}/`)).filter((request) => request.path.endsWith('.safetensors')).length;
    const before = await elsewhere();
    t.check.equal(await again('noranges'), full);
    t.check.equal(await elsewhere(), before);

    const { folder } = await storage();
    const index = await (await fetch(`${t.base}plain/${MADE}/subbyte.index.json`)).json();
    const layer = index.components.find(({ name }) => name === 'layer_1');
    await folder.removeEntry(layer.sha256);
    t.check.equal(await again('plain'), full);
    const fetched = (await shards()).slice(once).map(({ method, range }) => `${method} ${range ?? ''}`.trim());
    t.check.equal(fetched.length, 2, String(fetched)); // a HEAD and one range

    const embeddings = index.components.find(({ name }) => name === 'embeddings');
    const file = await folder.getFileHandle(embeddings.sha256);
    const bytes = new Uint8Array(await (await file.getFile()).arrayBuffer());
    bytes[100] ^= 1;
    const stream = await file.createWritable().catch(() => null);
    if (!stream) return; // a browser that writes storage in workers only
    await stream.write(bytes);
    await stream.close();
    t.check.equal(await again('plain'), full, 'damage in storage is mended from the network');
    t.check.equal((await storage()) && (await (await folder.getFileHandle(embeddings.sha256)).getFile()).size, layer && embeddings.bytes[1] - embeddings.bytes[0]);
  },

  async 'quantising: the folder, its report and its loss'(t) {
    const engine = await t.Engine.create();
    const seen = [];
    const target = t.scratch();
    const { options, text } = t.made;
    const source = `${t.base}plain/quantised/source`;
    if (t.isPage && !(await hasStorage())) {
      t.check.equal((await caught(() => engine.quantize(source, target, { ...options, text }))).code, 'kWriteFailed', 'nowhere to write');
      return engine.dispose();
    }
    const { folder, report, evaluation } = await engine.quantize(source, target, { ...options, text, evalWindows: 2, onProgress: (progress) => seen.push(progress) });
    t.check.ok(report.bpwLinears > 4 && report.weightBytes > 10_000, JSON.stringify(report));
    t.check.ok(evaluation.kl > 0 && evaluation.nTokens === 62, JSON.stringify(evaluation));
    t.check.equal([...new Set(seen.map(({ phase }) => phase))].join(), 'load,quantize,load,evaluate'.split(',').filter((phase, i, all) => all.indexOf(phase) === i).join());
    t.check.ok(seen.every(({ fraction }) => fraction >= 0 && fraction <= 1), 'fractions');
    t.check.equal((await caught(() => engine.quantize(source, target, { ...options, text }))).code, 'kTargetExists');
    const model = await engine.load(folder, { planes: 'full' });
    t.check.equal(model.info.hasTokenizer, true);
    const mine = await answer(model);
    // The fixture was made in Node: the same options, the same bytes.
    t.check.equal(mine, await fromScratch(t, 'full'));
    t.check.equal(await t.textOf(folder, 'subbyte.index.json'), await (await fetch(`${t.base}plain/${MADE}/subbyte.index.json`)).text());
    const card = JSON.parse(await t.textOf(folder, 'model-card.json'));
    t.check.equal(card.evaluation.kl, evaluation.kl);
    await engine.dispose();
  },

  async 'quantising stops when told, says what is wrong, and leaves nothing'(t) {
    if (t.isPage && !(await hasStorage())) return; // nowhere to write: the case before
    const engine = await t.Engine.create();
    const { options, text } = t.made;
    const source = `${t.base}plain/quantised/source`;
    const quantize = (more) => caught(() => engine.quantize(source, t.scratch('left'), { ...options, text, ...more }));
    const stop = new AbortController();
    const stopped = await quantize({ signal: stop.signal, onProgress: ({ phase, fraction }) => phase === 'quantize' && fraction > 0 && stop.abort() });
    t.check.equal(stopped.name, 'AbortError');
    t.check.equal((await quantize({ text: '' })).code, 'kArgumentInvalid');
    t.check.equal((await quantize({ text: 'short' })).code, 'kTextTooShort');
    t.check.equal((await quantize({ bits: '5' })).code, 'kOptionInvalid');
    t.check.equal((await quantize({ bitz: '2' })).code, 'kOptionUnknown');
    t.check.equal((await quantize({ bits: 'mixed', bytes: 1000, refine: false })).code, 'kBudgetTooSmall');
    t.check.equal((await caught(() => engine.quantize(`${t.base}plain/none`, t.scratch('left'), { text }))).code, 'kFileMissing');
    t.check.equal(await t.exists('left'), false);
    await engine.dispose();
  },

  async 'a folder is made by one run at a time'(t) {
    if (t.isPage && !(await hasStorage())) return;
    const [one, two] = await Promise.all([t.Engine.create(), t.Engine.create()]);
    const { options, text } = t.made;
    const target = t.scratch('shared');
    const stop = new AbortController();
    const nStuck = async () => (await fetch(`${t.base}stuck`)).json();
    const before = await nStuck();
    const first = caught(() => one.quantize(`${t.base}stuck/quantised/source`, target, { ...options, text, signal: stop.signal }));
    let isOver = false;
    void first.then(() => (isOver = true));
    while (!isOver && (await nStuck()) === before); // until it waits for its source
    const again = (more) => caught(() => two.quantize(`${t.base}plain/quantised/source`, target, { ...options, text, ...more }));
    t.check.equal((await again()).code, 'kTargetBusy');
    stop.abort();
    t.check.equal((await first).name, 'AbortError');
    t.check.equal((await again({ text: 'short' })).code, 'kTextTooShort', 'it is free again');
    t.check.equal(await t.exists('shared'), false);
    await Promise.all([one.dispose(), two.dispose()]);
  },
};
