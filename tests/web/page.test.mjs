// What a user does on the page beyond asking: keys, files, settings, editing, a small screen; and what a screen reader hears.
import assert from 'node:assert/strict';

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { geometries, writeRandomModel } from '../../bench/gpu/random_model.mjs';
import { browserTest, modelUrl, withPage } from './support.mjs';

const CAPITAL = 'What is the capital of France?';

browserTest('keys: Enter sends, Shift+Enter breaks the line, Esc stops, Ctrl+K starts anew', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ 'max-tokens': '400' });
    await page.ready();
    const { keyboard } = page.driver.page; // the field has the focus when the page opens
    await keyboard.type('Write a long story');
    await keyboard.down('Shift');
    await keyboard.press('Enter');
    await keyboard.up('Shift');
    await keyboard.type('about a fox.');
    assert.equal(await page.evaluate(() => document.querySelector('[data-testid="prompt"]').value), 'Write a long story\nabout a fox.');
    await keyboard.press('Enter');
    await page.answered(20);
    await keyboard.press('Escape');
    await page.state('ready');
    assert.equal(await page.lastState(), 'stopped');
    await keyboard.down('Control');
    await keyboard.press('k');
    await keyboard.up('Control');
    await page.until(() => document.querySelectorAll('[data-testid="message"]').length === 0);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), 'prompt');
    assert.equal(await page.evaluate(() => document.querySelector('[data-testid="welcome"]').hidden), false);
    await page.until(() => document.querySelector('[data-testid="context"]').dataset.tokens === '0', { what: 'an empty cache' });
  }),
);

browserTest('a screen reader hears the finished answer once, and every control has a name', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open();
    await page.ready();
    await page.evaluate(() => {
      window.heard = [];
      const said = document.querySelector('[data-testid="announcer"]');
      new MutationObserver(() => window.heard.push(said.textContent)).observe(said, { childList: true, subtree: true, characterData: true });
    });
    await page.answerTo(CAPITAL);
    const heard = await page.evaluate(() => window.heard);
    assert.equal(heard.length, 1);
    assert.match(heard[0], /^Answer: .*Paris/);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll('button, input, textarea, a[href], dialog, [role]')]
        .filter((element) => !element.hidden && !element.closest('[hidden]') && element.id !== 'prompt')
        .filter((element) => !(element.getAttribute('aria-label') || element.getAttribute('aria-labelledby') || element.labels?.length || element.textContent.trim()))
        .filter((element) => !['announcer', 'device'].includes(element.dataset.testid))
        .map((element) => element.outerHTML.slice(0, 100)),
    );
    assert.deepEqual(nameless, []);
    assert.equal(await page.evaluate(() => document.querySelector('[data-testid="prompt"]').labels[0].textContent), 'Your question');
    assert.equal(await page.evaluate(() => document.querySelector('[role="log"]').getAttribute('aria-live')), 'off');
  }),
);

browserTest('a GGUF dropped on the page is loaded; one that is none is refused', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ model: 'none' });
    assert.equal(await page.state('empty'), 'empty');
    const drop = (url, name) =>
      page.evaluate(
        async (from, as) => {
          const bytes = from ? await (await fetch(from)).blob() : new Blob(['hello']);
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], as));
          dispatchEvent(new DragEvent('dragenter', { dataTransfer }));
          const isShown = !document.querySelector('[data-testid="drop"]').hidden;
          dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true }));
          return isShown && document.querySelector('[data-testid="drop"]').hidden;
        },
        url,
        name,
      );
    assert.equal(await drop(null, 'notes.gguf'), true, 'the page shows where to drop, and takes that away again');
    await page.state('failed');
    assert.equal((await page.trouble()).code, 'kNotAModel');
    await drop(modelUrl, 'my model.gguf');
    await page.ready();
    assert.equal(await page.text('model-current'), 'my model');
    assert.match(await page.answerTo(CAPITAL), /Paris/);
  }),
);

browserTest('edit, answer again, settings and system prompt', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open();
    await page.ready();
    const first = await page.answerTo(CAPITAL);
    await page.click('regenerate');
    await page.state('answering', 'ready');
    await page.state('ready');
    assert.deepEqual(await page.answers(), [first], 'greedily the same, in the same place');

    await page.click('edit');
    await page.evaluate(() => {
      document.querySelector('[data-testid="edit-text"]').value = 'What is the capital of Italy?';
      document.querySelector('[data-testid="edit-send"]').click();
    });
    await page.until(() => document.querySelector('[data-testid="question"]')?.textContent === 'What is the capital of Italy?');
    await page.state('ready');
    assert.match((await page.answers()).join(), /Italy/); // a small model does not know more

    // A longest answer of three tokens, through the drawer, is kept and obeyed.
    await page.evaluate(() => {
      const field = document.querySelector('[data-testid="set-max-tokens"]');
      field.value = '3';
      field.dispatchEvent(new Event('input'));
    });
    await page.answerTo('Tell me about Rome.');
    assert.match(await page.evaluate(() => [...document.querySelectorAll('[data-testid="answer-note"]')].at(-1).textContent), /longest answer.*3 tokens/);
    await page.open();
    await page.ready();
    assert.equal(await page.evaluate(() => document.querySelector('[data-testid="set-max-tokens"]').value), '3');
  }),
);

browserTest('books of memory by tag, and the context, in the details', {}, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    await page.open({ prompt: CAPITAL });
    await page.ready();
    await page.click('memory');
    await page.until(() => document.querySelector('[data-testid="memory-details"]').matches(':popover-open'));
    const tags = await page.evaluate(() => [...document.querySelectorAll('[data-testid="memory-details"] [data-tag]')].map((row) => row.dataset.tag));
    assert.deepEqual(tags, ['weights', 'kv', 'activations', 'staging', 'scratch', 'host']);
    await page.until(() => Number(document.querySelector('[data-testid="context"]').dataset.tokens) > 20);
    assert.match(await page.text('context'), /^context \d+ \/ [\d,]+$/);
    assert.match(await page.text('model-detail'), /MB · \d\.\d\d bits a weight/);
  }),
);

const LOOKS = [
  { title: 'a phone of 360 pixels', viewport: { width: 360, height: 700 } },
  { title: 'a wide screen', viewport: { width: 1600, height: 900 } },
];
for (const { title, viewport } of LOOKS) {
  browserTest(`nothing is cut off or overlaps on ${title}`, { needsModel: false }, (t) =>
    withPage(t, 'chromium', { browser: { viewport } }, async (page) => {
      await page.open({ model: '/models/a-model-with-a-very-long-name-that-is-not-there-at-all-Instruct.Q4_K_M.gguf' });
      await page.state('failed');
      const boxes = await page.evaluate(() => {
        const box = (element) => element.getBoundingClientRect();
        const tools = [...document.querySelectorAll('.top button')].map(box);
        return {
          wide: document.documentElement.scrollWidth,
          outside: [...document.querySelectorAll('button, textarea, .trouble *')].filter((e) => box(e).width && (box(e).right > innerWidth + 1 || box(e).left < -1)).map((e) => e.outerHTML.slice(0, 80)),
          overlap: tools.some((a, i) => tools.some((b, j) => j > i && a.left < b.right - 1 && b.left < a.right - 1)),
          composerBottom: box(document.querySelector('[data-testid="composer"]')).bottom,
        };
      });
      assert.ok(boxes.wide <= viewport.width, `${boxes.wide} wide`);
      assert.deepEqual(boxes.outside, []);
      assert.equal(boxes.overlap, false);
      assert.ok(boxes.composerBottom <= viewport.height);
    }),
  );
}

browserTest('colours: as the system, light, dark; the choice is kept', { needsModel: false }, (t) =>
  withPage(t, 'chromium', {}, async (page) => {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.open({ model: 'none' });
    await page.state('empty');
    const system = await paper();
    await page.click('theme');
    const light = await paper();
    await page.click('theme');
    const dark = await paper();
    assert.equal(system, light, 'a headless browser is light');
    assert.notEqual(dark, light);
    await page.open({ model: 'none' });
    await page.state('empty');
    assert.equal(await paper(), dark);
  }),
);

browserTest('?profile: the GPU\'s kernels as a chart, after the first answer', { needsModel: false }, async (t) => {
  const models = await mkdtemp(join(tmpdir(), 'subbyte-noise-'));
  t.after(() => rm(models, { recursive: true }));
  writeRandomModel(join(models, 'noise'), geometries.tiny, 2, { nLayers: 1 });
  await withPage(t, 'chromium', { server: { models }, browser: { gpu: true } }, async (page) => {
    await page.open({ model: '/models/noise/', device: 'webgpu', prompt: 'Once', 'max-tokens': '4', profile: '' });
    await page.ready();
    const total = await page.until(() => document.querySelector('[data-testid="profile-total"]')?.textContent);
    const [n, sum] = await page.evaluate(() => {
      const numbers = [...document.querySelectorAll('[data-testid="profile-kernels"] tbody tr')].map((row) => [...row.cells].slice(1, 4).map((cell) => parseFloat(cell.textContent)));
      return [numbers.reduce((all, [times]) => all + times, 0), numbers.reduce((all, [, , percent]) => all + percent, 0)];
    });
    assert.match(total, new RegExp(`^\\d.* a token in ${n} kernels; one by one they take \\d.*\\.$`));
    assert.ok(n >= 6 && Math.abs(sum - 100) < 1, `${n} kernels, ${sum} %`);
    await page.click('profile-close');
    assert.equal(await page.evaluate(() => document.querySelector('[data-testid="profile"]').open), false);
    // It goes on answering, and the button behind the device does the same.
    assert.ok(await page.answerTo('upon'));
    await page.click('device');
    await page.click('profile-button');
    await page.until(() => document.querySelector('[data-testid="profile"]').open && document.querySelector('[data-testid="profile-total"]'));
  });
});
