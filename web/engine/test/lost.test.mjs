// A GPU that is lost: while a model loads, while it reads its prompt, while it answers. The stream goes on with the same tokens. In Node over
// Dawn, whose device is destroyed from inside (harness/lose_gpu.mjs). Run with: node --test web/engine/test/lost.test.mjs
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { nodeEngine, openHarness } from '../../harness/backend.mjs';
import { GpuMissing, prepareNodeGpu } from '../../harness/gpu.mjs';
import { gpuLoser } from '../../harness/lose_gpu.mjs';
import { BrowserMissing } from '../../harness/program.mjs';

const here = fileURLToPath(import.meta.url);
const golden = join(dirname(here), '../../../tests/golden');
const INSIDE = 'SUBBYTE_TEST_LOST';

// Chunks of 16 and 4 and twice one token.
const prompt = Array.from({ length: 22 }, (_, i) => (i * 31 + 7) % 90 + 3);
const SHORT = [5]; // one program, so that little is made anew: losses count a minute
const GREEDY = { maxTokens: 12, ignoreEos: true };
const SEEDED = { ...GREEDY, temperature: 0.9, seed: 11 };

if (!process.env[INSIDE]) {
  test('a GPU that is lost', { timeout: 600_000 }, async (t) => {
    try {
      prepareNodeGpu({ always: true });
    } catch (error) {
      if (!(error instanceof GpuMissing) || process.env.CI) throw error;
      return t.skip(error.message);
    }
    // A process of its own: only one that is told so at its start has the GPU that can be lost in its workers.
    const args = ['--import', join(dirname(here), '../../harness/lose_gpu.mjs'), '--test-reporter=tap', here];
    const child = spawn(process.execPath, args, { env: { ...process.env, [INSIDE]: '1', NODE_TEST_CONTEXT: undefined }, stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => child.kill('SIGKILL'));
    let told = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (told += text));
    const [status] = await once(child, 'close');
    assert.equal(status, 0, told);
    t.diagnostic(/^# pass \d+/m.exec(told)?.[0] ?? told);
  });

  test('a GPU whose process dies under an answer, in Chromium; a second visit checks no kernels', { timeout: 300_000 }, async (t) => {
    let page;
    try {
      page = await openHarness('chromium', { mounts: { '/golden/': golden }, browserOptions: { gpu: true } });
    } catch (error) {
      if (!(error instanceof BrowserMissing) || process.env.CI) throw error;
      return t.skip(error.message);
    }
    t.after(() => page.close());
    const { browser } = page;
    const first = await browser.evaluate(
      async (ids, options) => {
        const engine = await window.SubbyteEngine.create({ device: 'webgpu', fallback: false });
        const checks = [];
        for (let visit = 0; visit < 2; visit++) {
          window.model = await engine.load('/golden/llama', {});
          checks.push(window.model.info.selfCheck);
          if (visit === 0) await window.model.dispose();
        }
        const whole = await window.model.generate(ids, options).result;
        await window.model.reset();
        window.states = [];
        window.model.addEventListener('device', ({ detail }) => window.states.push(detail.state));
        const stream = window.model.generate(ids, options);
        await stream[Symbol.asyncIterator]().next();
        window.lost = stream.result;
        return { checks, ids: whole.ids };
      },
      prompt,
      { ...GREEDY, maxTokens: 80 },
    );
    const devtools = await browser.page.browser().target().createCDPSession();
    await devtools.send('Browser.crashGpuProcess').catch(() => {}); // it dies before it answers
    const { ids, states } = await browser.evaluate(async () => ({ ids: (await window.lost).ids, states: window.states.join(' ') }));
    assert.deepEqual(ids, first.ids);
    assert.equal(states, 'lost restored');
    assert.ok(first.checks[0].checked > 5, JSON.stringify(first.checks));
    assert.equal(first.checks[1].checked, 0, JSON.stringify(first.checks));
  });
} else {
  const { Engine } = await nodeEngine({ device: 'webgpu' });
  const loser = gpuLoser();
  after(() => loser.close());

  /** Calls `work` with a model on the GPU that goes, if at all, as `load` says while it loads. */
  const withModel = async ({ family = 'llama', fallback = false, load }, work) => {
    const engine = await Engine.create({ device: 'webgpu', fallback, threads: 1 });
    try {
      if (load) await loser.lose(load);
      const model = await engine.load(join(golden, family), { cache: 'off' });
      const states = [];
      model.addEventListener('device', ({ detail }) => states.push(detail));
      await work(model, async (options, lose, ids = prompt) => {
        await model.reset();
        states.length = 0;
        if (lose) await loser.lose(lose);
        const answer = await model.generate(ids, options).result;
        return { ids: answer.ids, states: states.map(({ state }) => state).join(' '), last: states.at(-1) };
      }, engine);
    } finally {
      await engine.dispose();
    }
  };

  // What a whole GPU answers, by model and options.
  const whole = new Map();
  const answerOf = async (family, options) => {
    const key = JSON.stringify([family, options]);
    if (!whole.has(key)) {
      await withModel({ family }, async (model, answer) => {
        const { ids, states } = await answer(options);
        assert.equal(states, '');
        assert.equal(model.info.device, 'webgpu');
        assert.equal(model.info.selfCheck.checked, model.info.selfCheck.kernels, JSON.stringify(model.info.selfCheck));
        whole.set(key, ids);
      });
    }
    return whole.get(key);
  };

  test('a load has compiled all that an answer takes, beside its bytes', async () => {
    const want = await answerOf('llama', GREEDY);
    process.env.SUBBYTE_TEST_HARD_GPU = '1';
    try {
      await withModel({}, async (model, answer) => {
        assert.equal(model.info.selfCheck.checked, model.info.selfCheck.kernels);
        const { ids } = await answer(GREEDY);
        await answer(SEEDED);
        const { createComputePipeline = 0, createComputePipelineAsync } = await loser.calls();
        assert.equal(createComputePipeline, 0, 'waited for');
        assert.ok(createComputePipelineAsync > 10, `${createComputePipelineAsync} prepared`);
        assert.deepEqual(ids, want);
      });
    } finally {
      delete process.env.SUBBYTE_TEST_HARD_GPU;
    }
  });

  test('while it loads', async () => {
    const want = await answerOf('llama', GREEDY);
    for (const load of [{ call: 'writeBuffer', after: 5 }, { call: 'submit', after: 2 }]) {
      await withModel({ load }, async (model, answer) => assert.deepEqual((await answer(GREEDY)).ids, want, load.call));
    }
  });

  // Of submits there is one a chunk of the prompt, and one a token.
  for (const [what, family, call, losses] of [
    ['while it reads its prompt, and while it answers', 'llama', 'submit', [[GREEDY, 1], [SEEDED, 9], [GREEDY, 14]]],
    ['when a token has come and is not taken yet', 'llama', 'getMappedRange', [[GREEDY, 2]]],
    ['another family likewise', 'gemma3', 'submit', [[GREEDY, 0], [GREEDY, 7]]],
  ]) {
    test(what, async () => {
      const want = [];
      for (const [options] of losses) want.push(await answerOf(family, options));
      await withModel({ family }, async (model, answer) => {
        for (const [i, [options, after]] of losses.entries()) {
          const { ids, states, last } = await answer(options, { call, after });
          assert.deepEqual(ids, want[i], `at ${call} ${after}`);
          assert.equal(states, 'lost restored');
          assert.equal(last.device, 'webgpu');
        }
        assert.deepEqual((await answer(GREEDY)).ids, await answerOf(family, GREEDY), 'the answer after them');
      });
    });
  }

  test('again while it comes back', () =>
    withModel({}, async (model, answer) => {
      const { ids, states } = await answer(GREEDY, { call: 'createBindGroup', after: 0, times: 3 });
      assert.deepEqual(ids, await answerOf('llama', GREEDY));
      assert.match(states, /^lost .*restored$/);
    }));

  test('again and again: the answer ends typed', () =>
    withModel({}, async (model, answer) => {
      await assert.rejects(answer(GREEDY, { call: 'submit', after: 0, times: 9 }, SHORT), (error) => {
        assert.equal(error.code, 'kDeviceLost');
        assert.match(error.message, /4 times within a minute/);
        return true;
      });
    }));

  test('again and again: the CPU goes on', () =>
    withModel({ fallback: true }, async (model, answer) => {
      const want = (await answer(GREEDY, undefined, SHORT)).ids;
      const { ids, states, last } = await answer(GREEDY, { call: 'submit', after: 1, times: 9 }, SHORT);
      assert.deepEqual(ids, want);
      assert.equal(states, 'lost restored lost restored lost restored lost fallback');
      assert.match(last.why, /4 times within a minute/);
      assert.equal(model.info.device, 'cpu');
      assert.equal(model.info.deviceWhy, last.why);
    }));

  test('and it does not come back: the CPU goes on', () =>
    withModel({ fallback: true }, async (model, answer) => {
      const { ids, states, last } = await answer(GREEDY, { call: 'submit', after: 7, isGone: true });
      assert.deepEqual(ids, await answerOf('llama', GREEDY));
      assert.equal(states, 'lost fallback');
      assert.match(last.why, /there is no adapter/);
    }));

  test('while it loads, and it does not come back: the model is loaded on the CPU', () =>
    withModel({ fallback: true, load: { call: 'submit', after: 1, isGone: true } }, async (model, answer, engine) => {
      assert.deepEqual((await answer(GREEDY)).ids, await answerOf('llama', GREEDY));
      assert.equal(model.info.device, 'cpu');
      assert.equal(engine.capabilities.device, 'cpu');
      assert.match(engine.capabilities.deviceWhy, /lost/);
    }));
}
