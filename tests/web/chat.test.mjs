// Each browser: load the real page, chat with the real model, stop, reload, chat again; with threads and without.
import assert from 'node:assert/strict';

import { browserTest, modelUrl, withPage } from './support.mjs';

const BROWSERS = [
  // build with the headers that threads need, build without them, and what the page says of the latter
  { name: 'chromium', isolated: 'relaxed-threads', plain: 'relaxed', why: /not cross-origin isolated/, hasStorage: true },
  { name: 'firefox', isolated: 'relaxed-threads', plain: 'relaxed', why: /not cross-origin isolated/, hasStorage: true },
  { name: 'webkit', isolated: 'simd-threads', plain: 'simd', why: /no WebAssembly relaxed SIMD/, hasStorage: false }, // no OPFS in WebKitGTK's MiniBrowser
];
const CAPITAL = 'What is the capital of France?';
const LONG = 'Write a long story about a fox and a hedgehog.';

const fetches = (page) => page.site.requests.filter(({ path }) => path === modelUrl).length;

for (const { name, isolated, plain, why, hasStorage } of BROWSERS) {
  browserTest(`${name}: chat, stop, reload, chat again`, {}, (t) =>
    withPage(t, name, {}, async (page) => {
      await page.open({ 'max-tokens': '400' });
      await page.ready();
      t.diagnostic(`${page.driver.version}: ${await page.text('device')}`);
      // A page that may have threads measures how many answer soonest, on a busy machine perhaps one.
      const threads = Number(await page.data('device', 'threads'));
      assert.equal(await page.data('device', 'build'), threads > 1 ? isolated : plain);
      if (threads === 1) assert.match(await page.text('why-not'), /one thread was measured to answer soonest/i);
      assert.equal(fetches(page), 1);

      assert.match(await page.answerTo(CAPITAL), /Paris/);
      assert.match(await page.text('tokens-per-s'), /^\d+(\.\d)? tok\/s$/);
      assert.match(await page.text('first-token'), /^first token \d/);
      assert.ok(Number(await page.data('memory', 'bytes')) > 50e6);
      t.diagnostic(`${await page.text('tokens-per-s')}, ${await page.text('first-token')}, ${await page.text('memory')}`);

      await page.ask(LONG);
      await page.answered(60);
      const pressed = Date.now();
      await page.click('stop');
      await page.state('ready');
      t.diagnostic(`stopped after ${Date.now() - pressed} ms`);
      assert.equal(await page.lastState(), 'stopped');
      assert.match(await page.text('answer'), /Paris/, 'the first answer is still there');
      const stopped = (await page.answers()).at(-1);
      // At once, and with the conversation as it was: greedily the same answer comes again, now further.
      await page.click('regenerate');
      await page.answered(stopped.length + 20);
      await page.click('stop');
      await page.state('ready');
      const again = (await page.answers()).at(-1);
      assert.ok(again.startsWith(stopped), `${JSON.stringify(again)} begins with ${JSON.stringify(stopped)}`);

      await page.open({ 'max-tokens': '400' });
      await page.ready();
      assert.equal(fetches(page), hasStorage ? 1 : 2, 'the second load comes from storage where there is any');
      assert.equal((await page.answers()).length, 2, 'the conversation is still there');
      await page.click('new-chat');
      await page.until(() => document.querySelectorAll('[data-testid="message"]').length === 0);
      assert.match(await page.answerTo(CAPITAL), /Paris/);
    }),
  );

  browserTest(`${name}: without isolation headers it says why there are no threads`, {}, (t) =>
    withPage(t, name, { server: { isolation: false } }, async (page) => {
      await page.open({ prompt: CAPITAL, model: modelUrl });
      await page.ready();
      assert.equal(await page.data('device', 'build'), plain);
      assert.equal(await page.data('device', 'threads'), '1');
      assert.match(await page.text('why-not'), why);
      assert.match((await page.answers()).at(-1), /Paris/);
    }),
  );
}
