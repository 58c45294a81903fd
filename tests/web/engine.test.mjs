// The package in a page, without the chat around it: what it promises to whoever calls it. window.SubbyteEngine is its Engine.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { browserTest, modelUrl, withEngine } from './support.mjs';

const TIMES = 10;

browserTest('a second generate while one runs is kSessionBusy, and the first goes on', {}, () =>
  withEngine('chromium', {}, async (page) => {
    const seen = await page.evaluate(async (url) => {
      const engine = await SubbyteEngine.create();
      const model = await engine.load(url);
      const first = model.generate('What is the capital of France?', { maxTokens: 32 });
      const second = await model.generate('And of Italy?').result.catch((error) => ({ code: error.code, retryable: error.retryable, name: error.name, hint: error.hint }));
      const { text } = await first.result;
      const third = (await model.generate('What is the capital of France?', { maxTokens: 32 }).result).text;
      await engine.dispose();
      return { second, text, third };
    }, modelUrl);
    assert.equal(seen.second.name, 'SubbyteError');
    assert.equal(seen.second.code, 'kSessionBusy');
    assert.equal(seen.second.retryable, true);
    assert.match(seen.text, /Paris/);
    assert.equal(seen.third, seen.text);
  }),
);

browserTest('abort: an AbortError at once, and the session is usable at once', {}, () =>
  withEngine('chromium', {}, async (page) => {
    const seen = await page.evaluate(async (url) => {
      const engine = await SubbyteEngine.create();
      const model = await engine.load(url);
      const control = new AbortController();
      let n = 0;
      let name = '';
      let abortedAt = 0;
      let heardAt = 0;
      try {
        for await (const part of model.generate('Write a long story.', { maxTokens: 400, signal: control.signal })) {
          void part;
          if (++n < 5) continue;
          abortedAt = performance.now();
          control.abort();
        }
      } catch (error) {
        heardAt = performance.now();
        name = error.name;
      }
      const { text, usage } = await model.generate('What is the capital of France?', { maxTokens: 32 }).result;
      // Aborted before it begins, and again afterwards.
      const before = await model.generate('Hello', { signal: AbortSignal.abort() }).result.catch((error) => error.name);
      const after = (await model.generate('What is the capital of France?', { maxTokens: 32 }).result).text;
      // Leaving the loop ends the answer, too.
      for await (const part of model.generate('Write a long story.', { maxTokens: 400 })) if (part.id !== null) break;
      const last = (await model.generate('What is the capital of France?', { maxTokens: 32 }).result).text;
      await engine.dispose();
      return { n, name, ms: heardAt - abortedAt, text, before, after, last, usage };
    }, modelUrl);
    assert.equal(seen.name, 'AbortError');
    assert.equal(seen.n, 5);
    assert.ok(seen.ms < 1000, `heard after ${seen.ms} ms`);
    assert.equal(seen.before, 'AbortError');
    for (const text of [seen.text, seen.after, seen.last]) assert.match(text, /Paris/);
  }),
);

browserTest('bad options and prompts are refused by name, and cost nothing', {}, () =>
  withEngine('chromium', {}, async (page) => {
    const seen = await page.evaluate(async (url) => {
      const engine = await SubbyteEngine.create();
      const model = await engine.load(url, { context: 64 });
      const code = (prompt, options) => model.generate(prompt, options).result.then(() => 'none', (error) => `${error.code}: ${error.message} ${error.hint}`);
      const codes = {
        unknown: await code('Hi', { temprature: 1 }),
        negative: await code('Hi', { temperature: -1 }),
        zero: await code('Hi', { maxTokens: 0 }),
        nan: await code('Hi', { topP: NaN }),
        long: await code('word '.repeat(200)),
        empty: await code('', { raw: true }),
        load: await engine.load(url, { context: -1 }).then(() => 'none', (error) => error.code),
      };
      const { text } = await model.generate('The capital of France is', { raw: true, maxTokens: 8 }).result;
      await engine.dispose();
      return { codes, text };
    }, modelUrl);
    assert.match(seen.codes.unknown, /^kOptionUnknown: .*temprature.*temperature/);
    assert.match(seen.codes.negative, /^kOptionInvalid: .*temperature/);
    assert.match(seen.codes.zero, /^kOptionInvalid: .*maxTokens/);
    assert.match(seen.codes.nan, /^kOptionInvalid: .*topP/);
    assert.match(seen.codes.long, /^kPromptTooLong: /);
    assert.match(seen.codes.empty, /^kPromptEmpty: /);
    assert.equal(seen.codes.load, 'kOptionInvalid');
    assert.match(seen.text, /Paris/);
  }),
);

/** Resident bytes of all renderer processes: what a leak would show in, whatever the books say. */
async function rendererBytes(page) {
  const session = await page.page.browser().target().createCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  let bytes = 0;
  for (const { type, id } of processInfo) {
    if (type !== 'renderer') continue;
    const [, resident] = readFileSync(`/proc/${id}/statm`, 'utf8').split(' ');
    bytes += Number(resident) * 4096;
  }
  return bytes;
}

browserTest(`load, generate and dispose ${TIMES} times: the memory at the end is that after the first`, {}, (t) =>
  withEngine('chromium', {}, async (page) => {
    const rounds = [];
    await page.evaluate(async () => {
      window.engine = await SubbyteEngine.create();
    });
    for (let i = 0; i < TIMES; i++) {
      const round = await page.evaluate(async (url) => {
        const model = await window.engine.load(url);
        const { ids } = await model.generate('What is the capital of France?', { maxTokens: 4 }).result;
        const { current, peak, wasmBytes } = await model.memory();
        await model.dispose();
        const closed = await model.generate('Hi').result.catch((error) => error.code);
        return { ids: ids.join(), current, peak, wasmBytes, closed };
      }, modelUrl);
      await page.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 300))); // the browser ends workers in its own time
      rounds.push({ ...round, workers: page.page.workers().length, resident: await rendererBytes(page) });
    }
    const [first] = rounds;
    const last = rounds.at(-1);
    t.diagnostic(`resident MB: ${rounds.map(({ resident }) => Math.round(resident / 1e6)).join(' ')}; books ${first.current}, wasm ${first.wasmBytes}`);
    for (const { ids, current, peak, wasmBytes, workers, closed } of rounds) {
      assert.deepEqual({ ids, current, peak, wasmBytes }, { ids: first.ids, current: first.current, peak: first.peak, wasmBytes: first.wasmBytes });
      assert.equal(workers, 0, 'no worker is left');
      assert.equal(closed, 'kSessionClosed');
    }
    // One model kept by mistake would be 100 MB; the rest is the browser's own collecting.
    assert.ok(last.resident < first.resident + 40e6, `${first.resident} → ${last.resident}`);
  }),
);

browserTest('fifty answers from one model: its books do not grow', {}, () =>
  withEngine('chromium', {}, async (page) => {
    const currents = await page.evaluate(async (url) => {
      const engine = await SubbyteEngine.create();
      const model = await engine.load(url, { context: 512 });
      const seen = [];
      for (let i = 0; i < 50; i++) {
        await model.generate(`Number ${i}. Hello!`, { maxTokens: 2 }).result;
        if (i % 7 === 0) await model.reset();
        seen.push((await model.memory()).current);
      }
      await engine.dispose();
      return seen;
    }, modelUrl);
    // The cache of the conversation goes with each reset and comes back; beyond that nothing may grow.
    const most = (some) => Math.max(...some);
    assert.ok(most(currents.slice(25)) <= most(currents.slice(0, 25)), `${currents}`);
  }),
);
