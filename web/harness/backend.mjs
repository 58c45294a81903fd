// Where a job runs: here in Node, or in a browser on a page of our own. Both give the same events, in order, until {over}.
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { startBrowser } from './browser.mjs';
import { nodeEngine } from './node_engine.mjs';
import { serve } from './serve.mjs';

export { nodeEngine };

export const harness = dirname(fileURLToPath(import.meta.url));
export const engineDist = join(harness, '../engine/dist');
export const backends = ['node', 'chromium', 'firefox', 'webkit'];

/** The harness page in a browser: evaluate() reaches window.SubbyteEngine. Close both when done. */
export async function openHarness(name, { mounts = {}, serverOptions = {}, browserOptions = {} } = {}) {
  const server = await serve({ mounts: { '/engine/': engineDist, '/harness/': harness, ...mounts }, ...serverOptions });
  let browser;
  try {
    browser = await startBrowser(name, browserOptions);
    await browser.open(`${server.url}harness/page.html`);
    await browser.evaluate(() => new Promise((done) => (window.isReady ? done() : addEventListener('load', () => done()))));
  } catch (error) {
    await browser?.close();
    await server.close();
    throw error;
  }
  return {
    browser,
    server,
    async close() {
      await browser.close();
      await server.close();
    },
  };
}

/** Starts window[start](job) in the page and hands its events on. */
export async function pageJob(page, start, job, onEvent) {
  await page.browser.evaluate((name, what) => window[name](what), start, job);
  for (;;) {
    // As text: WebDriver would sort the keys.
    for (const event of JSON.parse(await page.browser.evaluate(async () => JSON.stringify(await window.nextEvents())))) {
      if (event.over) return;
      onEvent(event);
    }
  }
}

/** A model's path as the page sees it. */
export function modelMount(path) {
  const absolute = resolve(path);
  const name = absolute.slice(absolute.lastIndexOf('/') + 1);
  return { mounts: { '/models/': dirname(absolute) }, url: `/models/${encodeURIComponent(name)}` };
}

export function fail(error) {
  process.stderr.write(`${error.code ?? 'kInternal'}: ${error.message}\n${error.hint ? `${error.hint}\n` : ''}`);
  process.exitCode = 1;
}
