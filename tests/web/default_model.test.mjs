// The page's default model is made while the page chats; and what the page says of bits, losses and refinements. The model that is made is
// the small one of the package's tests, by the real command line: minutes of quantising are of the shelf `quantize`.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { FolderMaker, isWhole, QUANTISED } from '../../web/chat/default_model.mjs';
import { listModels } from '../../web/chat/serve.mjs';
import { calibration, makeQuantised, OPTIONS } from '../../web/engine/test/quantised.mjs';
import { browserTest, LONG_MS, model, withPage } from './support.mjs';

const cli = process.env.SUBBYTE_CLI ?? join(dirname(fileURLToPath(import.meta.url)), '../../build/release/apps/cli/subbyte');
const CAPITAL = 'What is the capital of France?';

const fixture = await makeQuantised();
after(() => fixture.remove());

/** A models folder with the default GGUF, and a maker of a small folder beside it. */
async function withMaker(run) {
  const models = await mkdtemp(join(tmpdir(), 'subbyte-models-'));
  await symlink(model, join(models, basename(model)));
  const text = join(models, 'text.txt');
  await writeFile(text, await calibration());
  const options = ['--bits', OPTIONS.bits, '--refine', '--tokens', String(OPTIONS.tokens), '--window', String(OPTIONS.window), '--text', text, '--eval-windows', '1'];
  const target = join(models, QUANTISED);
  const maker = new FolderMaker({ title: 'a small model', cli, source: fixture.source, target, options });
  try {
    await run({ models, maker, target });
  } finally {
    await maker.stop();
    await rm(models, { recursive: true });
  }
}

async function settled(maker) {
  for (;;) {
    const status = maker.status();
    if (status.state !== 'running') return status;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function cliTest(title, run) {
  test(title, { timeout: 240_000 }, async (t) => {
    if (!existsSync(cli)) return process.env.CI ? assert.fail('the command line is not built') : t.skip('the command line is not built');
    await run(t);
  });
}

cliTest('a folder is made once, and by one server at a time', () =>
  withMaker(async ({ models, maker, target }) => {
    assert.equal(maker.status().state, 'none');
    maker.start();
    assert.equal(maker.status().state, 'running');
    const other = new FolderMaker({ title: 'a small model', cli, source: fixture.source, target, options: [] });
    other.start(); // the lock is taken: it waits for the first
    assert.equal(other.status().state, 'running');
    const { state, error } = await settled(maker);
    assert.equal(state, 'done', JSON.stringify(error));
    assert.equal(other.status().state, 'done');
    assert.ok(!existsSync(`${target}.lock`) && !existsSync(`${target}.partial`));
    const [first, second] = listModels(models);
    assert.match(first.url, /^models\/.*\/v-[0-9a-f]{16}\/$/);
    assert.match(second.url, /\.gguf$/);
    maker.start();
    assert.equal(maker.status().state, 'done');
  }),
);

cliTest('a maker that is stopped leaves no model, and the next one makes it', () =>
  withMaker(async ({ maker, target }) => {
    maker.start();
    await maker.stop();
    assert.equal(maker.status().state, 'none');
    assert.ok(!isWhole(target) && !existsSync(`${target}.lock`));
    maker.start();
    assert.equal((await settled(maker)).state, 'done');
  }),
);

cliTest('a checkpoint that was left is gone on with, or cleared away where it fits no more', () =>
  withMaker(async ({ maker, target }) => {
    await mkdir(`${target}.partial`);
    await writeFile(join(`${target}.partial`, 'checkpoint'), 'of another version');
    maker.start();
    const status = await settled(maker);
    assert.equal(status.state, 'done', status.error?.message);
    assert.ok(!existsSync(`${target}.partial`) && !existsSync(`${target}.lock`));
  }),
);

cliTest('a maker that fails says why', () =>
  withMaker(async ({ models, target }) => {
    const options = ['--bits', '7', '--text', join(models, 'text.txt')];
    const maker = new FolderMaker({ title: 'a small model', cli, source: fixture.source, target, options });
    maker.start();
    const { state, error } = await settled(maker);
    assert.equal(state, 'failed');
    assert.match(error.message, /bits/);
    assert.ok(!existsSync(target) && !existsSync(`${target}.lock`));
  }),
);

browserTest('the page chats while the small model is made, then swaps it in and keeps the conversation', {}, (t) =>
  withMaker(async ({ models, maker }) => {
    if (!existsSync(cli)) return process.env.CI ? assert.fail('the command line is not built') : t.skip('the command line is not built');
    let isHeld = true;
    const held = { state: 'running', name: 'a small model', phase: 'quantize', fraction: 0.42, leftMs: 65_000 };
    const quantising = { status: () => (isHeld ? held : maker.status()) };
    await withPage(t, 'chromium', { server: { models, quantising } }, async (page) => {
      await page.open();
      await page.ready();
      const bits = Number(await page.data('bits', 'bpw'));
      assert.ok(bits > 4.5 && bits < 6.5, `${bits} bits a weight of the GGUF`);
      await page.until(() => !document.querySelector('[data-testid="side"]').hidden, { what: 'the card' });
      assert.match(await page.text('side'), /Making a small model.*42 %.*about 65 s left/);
      assert.match(await page.answerTo(CAPITAL), /Paris/, 'the page chats meanwhile');
      maker.start();
      isHeld = false;
      await page.until((name) => document.querySelector('[data-testid="model-current"]').textContent === name, { ms: 2 * LONG_MS, what: 'the swap' }, QUANTISED);
      await page.state('ready');
      assert.match((await page.answers()).at(-1), /Paris/, 'the conversation is still there');
      await page.until(() => document.querySelector('[data-testid="bits"]').dataset.planes === 'full', { what: 'the refinement' });
      await page.until(() => document.querySelector('[data-testid="side"]').hidden, { what: 'the card to go' }); // it told of the refinement last
      assert.match(await page.text('bits'), /bits · KL \d\.\d{3} · top-1 [−+]\d+\.\d %/);
      assert.match(await page.text('bits-details'), /tokens of text that it was not calibrated on/);
      await page.open();
      await page.ready();
      assert.equal(await page.text('model-current'), QUANTISED, 'the second start has it at once');
    });
  }),
);

browserTest('a refinement comes, goes and comes back; a folder without a card says that its loss is not known', { needsModel: false }, (t) =>
  withPage(t, 'chromium', { server: { models: fixture.folder } }, async (page) => {
    const planes = (wanted) => page.until((now) => document.querySelector('[data-testid="bits"]').dataset.planes === now, { what: `${wanted} planes` }, wanted);
    await page.open({ model: 'models/made/' });
    await page.ready();
    await planes('full');
    const memory = async () => {
      await page.until(() => Number(document.querySelector('[data-testid="memory"]').dataset.bytes) > 0);
      return Number(await page.data('memory', 'bytes'));
    };
    const full = await memory();
    await page.click('refinement');
    await planes('base');
    assert.match(await page.text('bits'), /base planes/);
    await page.until((before) => Number(document.querySelector('[data-testid="memory"]').dataset.bytes) < before, { what: 'its bytes to be free' }, full);
    await page.click('refinement');
    await planes('full');
    await cp(fixture.made, join(fixture.folder, 'cardless'), { recursive: true });
    await rm(join(fixture.folder, 'cardless/model-card.json'));
    await page.open({ model: 'models/cardless/' });
    await page.ready();
    await planes('full');
    assert.match(await page.text('bits-details'), /does not say what was lost/);
  }),
);
