// What can go wrong on the way to an answer, and what the page then says: which code, what to do, and whether it goes on afterwards.
import assert from 'node:assert/strict';
import { mkdtempSync, openSync, readSync, closeSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

import { browserTest, model, modelUrl, withPage } from './support.mjs';

const CAPITAL = 'What is the capital of France?';
const folder = mkdtempSync(join(tmpdir(), 'subbyte-web-tests-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** The first `n` bytes of the default model, under /bad/. */
function headOf(name, n) {
  const bytes = Buffer.alloc(n);
  const file = openSync(model, 'r');
  readSync(file, bytes, 0, n, 0);
  closeSync(file);
  writeFileSync(join(folder, name), bytes);
}
const written = (name, text) => writeFileSync(join(folder, name), text);

// A load that fails: `make` writes /bad/<file>, `fault` is the server's.
const BAD_LOADS = [
  { title: 'a 404', url: '/models/nothing.gguf', code: 'kHttpStatus', says: /nothing\.gguf answered 404/, retry: false },
  { title: 'a text file', make: () => written('a.gguf', 'Not a model.\n'), file: 'a.gguf', code: /kNotAModel|kModelTruncated/, says: /a\.gguf/, retry: false },
  { title: 'a page instead of a model', make: () => written('b.gguf', `<!doctype html>${' '.repeat(9000)}`), file: 'b.gguf', code: 'kNotAModel', says: /b\.gguf/, retry: false },
  { title: 'an empty file', make: () => written('c.gguf', ''), file: 'c.gguf', code: /kNotAModel|kModelTruncated/, says: /c\.gguf/ },
  { title: 'a GGUF cut in its header', make: () => headOf('d.gguf', 1000), file: 'd.gguf', code: 'kModelTruncated', says: /d\.gguf.*\d/, retry: true },
  { title: 'a GGUF cut in its vocabulary', make: () => headOf('e.gguf', 300_000), file: 'e.gguf', code: 'kModelTruncated', says: /e\.gguf.*\d/, retry: true },
  { title: 'a GGUF cut in its weights', make: () => headOf('f.gguf', 20_000_001), file: 'f.gguf', code: 'kModelTruncated', says: /f\.gguf.*20000001/, retry: true },
  { title: 'a server that is broken', url: modelUrl, fault: () => ({ status: 503 }), code: 'kHttpStatus', says: /answered 503/ },
  {
    title: 'a connection cut, and a server without ranges',
    url: modelUrl,
    fault: () => ({ cutAfter: 30e6, noRanges: true }),
    code: 'kDownloadFailed',
    says: /cannot resume/,
    retry: true,
  },
  { title: 'a connection that is always cut at once', url: modelUrl, fault: ({ count }) => ({ cutAfter: count === 1 ? 5e6 : 0 }), code: 'kDownloadFailed', says: /could not be fetched/, retry: true },
];

const matches = (actual, wanted) => (wanted instanceof RegExp ? assert.match(actual, wanted) : assert.equal(actual, wanted));

for (const { title, make, file, url = `/bad/${file}`, fault, code, says, retry } of BAD_LOADS) {
  browserTest(`load fails: ${title}`, { needsModel: true }, (t) => {
    make?.();
    const server = { mounts: { '/bad/': folder }, fault: ({ path, ...more }) => (path === url ? fault?.({ path, ...more }) : undefined) };
    return withPage(t, 'chromium', { server }, async (page) => {
      await page.open({ model: url, prompt: CAPITAL });
      assert.equal(await page.state('failed', 'ready'), 'failed');
      const trouble = await page.trouble();
      t.diagnostic(JSON.stringify(trouble));
      matches(trouble.code, code);
      assert.match(trouble.message, says);
      assert.doesNotMatch(trouble.message + trouble.hint, /undefined|\{|NaN|\[object/, 'whole sentences');
      assert.ok(trouble.hint.length > 10, 'says what to do');
      if (retry !== undefined) assert.equal(trouble.buttons.includes('retry'), retry);
      assert.ok(trouble.buttons.includes('choose'));
      assert.equal(await page.evaluate(() => document.querySelector('[data-testid="prompt"]').value), CAPITAL, 'the question is not lost');

      // The page goes on with a good model, and the question is still there to be sent.
      if (url === modelUrl || file === undefined) return;
      await page.click('choose');
      await page.until(() => document.querySelector('[data-testid="model-choice"]'));
      await page.evaluate(() => document.querySelector('[data-testid="model-choice"]').click());
      await page.ready();
    });
  });
}

browserTest('a connection cut in the middle is taken up where it broke', {}, (t) => {
  const fault = ({ path, count }) => (path === modelUrl && count <= 2 ? { cutAfter: 30e6 } : undefined);
  return withPage(t, 'chromium', { server: { fault } }, async (page) => {
    await page.open({ model: modelUrl, prompt: CAPITAL });
    await page.ready();
    assert.match((await page.answers()).at(-1), /Paris/);
    const ranges = page.site.requests.filter(({ path }) => path === modelUrl).map(({ range }) => Number(/^bytes=(\d+)-/.exec(range)?.[1]));
    assert.equal(ranges.length, 3);
    assert.equal(ranges[0], 0);
    assert.ok(ranges[1] > 20e6 && ranges[2] > ranges[1] + 20e6, `asked from ${ranges}`);
  });
});

browserTest('after a failed download, "Try again" loads', {}, (t) => {
  let isBroken = true;
  const fault = ({ path }) => (path === modelUrl && isBroken ? { cutAfter: 1e6, noRanges: true } : undefined);
  return withPage(t, 'chromium', { server: { fault } }, async (page) => {
    await page.open({ model: modelUrl });
    await page.state('failed');
    isBroken = false;
    await page.click('retry');
    await page.ready();
    assert.equal(await page.trouble(), null);
    assert.match(await page.answerTo(CAPITAL), /Paris/);
  });
});

browserTest('a server without Content-Length', {}, (t) => {
  const fault = ({ path }) => (path === modelUrl ? { noLength: true } : undefined);
  return withPage(t, 'chromium', { server: { fault } }, async (page) => {
    await page.open({ model: modelUrl, prompt: CAPITAL });
    await page.ready();
    assert.match((await page.answers()).at(-1), /Paris/);
  });
});

browserTest('progress: bytes rise to the whole file, with phases; cancel stops it', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ model: 'none' });
    await page.evaluate(() => {
      window.seen = [];
      const bar = document.querySelector('[data-testid="progress"]');
      new MutationObserver(() => {
        const { phase } = document.querySelector('[data-testid="load"]').dataset;
        window.seen.push([phase, Number(bar.getAttribute('aria-valuenow')), bar.getAttribute('aria-valuetext')]);
      }).observe(bar, { attributes: true, attributeFilter: ['aria-valuetext'] });
    });
    await page.click('model-button');
    await page.until(() => document.querySelector('[data-testid="model-choice"]'));
    await page.evaluate(() => document.querySelector('[data-testid="model-choice"]').click());
    await page.ready();
    const seen = await page.evaluate(() => window.seen);
    t.diagnostic(`${seen.length} reports, phases ${[...new Set(seen.map(([phase]) => phase))]}`);
    assert.ok(seen.some(([phase, percent]) => phase === 'fetch' && percent > 10 && percent < 95));
    assert.ok(seen.every(([, percent], i) => i === 0 || percent >= seen[i - 1][1]), 'never back');
    assert.match(seen.at(-1)[2], new RegExp(`${Math.round(statSync(model).size / 1e6)} MB`));

    // Cancelled from inside the page: from here the rest of the file would have come meanwhile.
    await page.evaluate(() => {
      const bar = document.querySelector('[data-testid="progress"]');
      new MutationObserver(() => {
        const percent = Number(bar.getAttribute('aria-valuenow'));
        if (percent > 20 && percent < 90) document.querySelector('[data-testid="cancel-load"]').click();
      }).observe(bar, { attributes: true, attributeFilter: ['aria-valuetext'] });
      document.querySelector('[data-testid="model-choice"]').click();
    });
    await page.state('empty');
    assert.equal(await page.trouble(), null, 'what the user wanted is no failure');
    await page.ask(CAPITAL);
    assert.equal(await page.evaluate(() => document.querySelector('dialog[data-testid="models"]').open), true, 'without a model it asks for one');
  }),
);

browserTest('a prompt longer than the context', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ context: '160' });
    await page.ready();
    assert.match(await page.answerTo(CAPITAL), /Paris/);
    await page.answerTo('word '.repeat(300));
    const trouble = await page.trouble();
    assert.equal(trouble.code, 'kPromptTooLong');
    assert.match(trouble.message, /\d{3} tokens.*160/);
    assert.deepEqual(trouble.buttons, ['leave-out', 'trouble-new-chat']);
    // Nothing is lost, and the session answers again.
    await page.click('trouble-new-chat');
    await page.until(() => document.querySelectorAll('[data-testid="message"]').length === 0);
    assert.match(await page.answerTo(CAPITAL), /Paris/);
  }),
);

browserTest('a worker that breaks: the page offers to load the model again', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ 'max-tokens': '300' });
    await page.ready();
    await page.ask('Write a long story about a fox.');
    await page.answered(20);
    const { page: tab } = page.driver;
    // The first worker is the core's own; the others are its threads.
    await tab.workers()[0].evaluate(() => setTimeout(() => { throw new Error('broken by a test'); }));
    await page.until(() => document.querySelector('[data-testid="error"]'));
    const trouble = await page.trouble();
    assert.equal(trouble.code, 'kWorkerFailed');
    assert.match(trouble.message, /broken by a test/);
    await page.click('retry');
    await page.answered(20); // the model is loaded again and the question asked again
    assert.equal(await page.trouble(), null);
    await page.click('stop');
    await page.state('ready');
  }),
);

browserTest('a device that is not here says so; the CPU takes its place, and another choice is tried at once', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ model: modelUrl, device: 'webgpu' });
    assert.equal(await page.state('failed', 'ready'), 'failed');
    const trouble = await page.trouble();
    assert.equal(trouble.code, 'kDeviceMissing');
    assert.match(trouble.message, /"webgpu" is not here: .+/);
    assert.deepEqual(trouble.buttons, ['use-cpu', 'choose']);
    await page.click('use-cpu');
    await page.ready();
    assert.match(await page.text('device'), /^CPU · /);
    assert.match(await page.answerTo(CAPITAL), /Paris/);
    await page.evaluate(() => {
      const select = document.querySelector('[data-testid="set-device"]');
      select.value = 'webgpu';
      select.dispatchEvent(new Event('input', { bubbles: true }));
    });
    await page.state('failed');
    assert.equal((await page.trouble()).code, 'kDeviceMissing');
    assert.equal((await page.answers()).length, 1, 'the conversation stays');
  }));
