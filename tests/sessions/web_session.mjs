// One conversation through the web engine, in a page or in Node. It answers the requests that `subbyte session` (apps/cli/session.cc)
// answers natively, in the same words, so that one script runs on both.
const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
const snake = (text) => text.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const renamed = (object, rename) => Object.fromEntries(Object.entries(object).map(([key, value]) => [rename(key), value]));

export function webSession(Engine, preset = {}) {
  let engine = null;
  let engineOptions = '';
  let model = null;
  let running = null; // {stream, parts: its iterator, first: the part that start() waited for}

  function loaded() {
    if (!model) throw Object.assign(new Error('This model was disposed'), { code: 'kSessionClosed', hint: 'Create a new one.' });
    return model;
  }

  async function done() {
    const { text, ids, finishReason, usage } = await running.stream.result;
    running = null;
    return { type: 'done', finish_reason: finishReason, usage: renamed(usage, snake), text, ids };
  }

  const operations = {
    async load({ model: source, engine: asked = {}, options = {} }) {
      await operations.dispose();
      const wanted = JSON.stringify(asked);
      if (!engine || wanted !== engineOptions) {
        await engine?.dispose();
        engine = null;
        engine = await Engine.create({ ...preset, ...renamed(asked, camel) });
        engineOptions = wanted;
      }
      model = await engine.load(source, { ...renamed(options, camel), cache: 'off' });
      return { info: renamed(model.info, snake) };
    },

    // A start that fails says so through the stream, so the first part is waited for.
    async start({ request }) {
      const { prompt, messages, ids, ...options } = request;
      const stream = loaded().generate(prompt ?? messages ?? ids, { ...renamed(options, camel), ...(prompt === undefined ? {} : { raw: true }) });
      const parts = stream[Symbol.asyncIterator]();
      const first = await parts.next();
      running = { stream, parts, first };
      return {};
    },

    async run({ tokens = Infinity }) {
      const events = [];
      while (events.length < tokens) {
        const { value: part, done: isOver } = running.first ?? (await running.parts.next());
        running.first = null;
        if (isOver) return { events: [...events, await done()], more: false };
        events.push({ type: 'token', ...part });
      }
      return { events, more: true };
    },

    async cancel() {
      if (!running) return { events: [], more: false };
      running.stream.cancel();
      return operations.run({});
    },

    async reset() {
      await loaded().reset();
      return {};
    },
    info: async () => renamed(await loaded().context(), snake),
    // A disposed model takes its worker, and so its books, with it.
    memory: async () => (model ? renamed(await model.memory(), snake) : { current: 0, peak: 0, by_tag: {} }),

    async dispose() {
      await model?.dispose();
      model = running = null;
      return {};
    },
    async close() {
      await engine?.dispose();
      return {};
    },
  };

  return async (request) => {
    try {
      return await operations[request.op](request);
    } catch (error) {
      // The package names options as JavaScript does; the scripts speak the core's names.
      const words = error.code?.startsWith('kOption') ? snake : (text) => text;
      return { error: { code: error.code ?? error.name, message: words(error.message), hint: words(error.hint ?? '') } };
    }
  };
}
