// What the page's tests share: a browser on the real page, and words for what a user does there.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';

import { modelsFolder, serveChat } from '../../web/chat/serve.mjs';
import { openHarness } from '../../web/harness/backend.mjs';
import { startBrowser } from '../../web/harness/browser.mjs';
import { BrowserMissing } from '../../web/harness/program.mjs';

export const model = join(modelsFolder(), 'SmolLM2-135M-Instruct.Q4_1.gguf');

/** The default GGUF alone: in the user's own cache a quantised folder may come before it. */
const gguf = mkdtempSync(join(tmpdir(), 'subbyte-gguf-'));
if (existsSync(model)) symlinkSync(model, join(gguf, basename(model)));
after(() => rmSync(gguf, { recursive: true }));
export const modelUrl = `/models/${basename(model)}`;

export const LONG_MS = 120_000; // for what computes: two shared cores, and WebKit without threads
const POLL_MS = 50;

/** A browser that dies may leave its driver waiting for ever: then this says for what. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** In CI everything must be there; elsewhere what is missing is a counted skip. */
function missing(t, why) {
  if (process.env.CI) assert.fail(why);
  t.skip(why);
}

/** A test that needs a browser, and the default model unless `needsModel` is false. */
export function browserTest(title, { needsModel = true, timeout = 4 * LONG_MS } = {}, run) {
  test(title, { timeout }, async (t) => {
    if (needsModel && !existsSync(model)) return missing(t, `${basename(model)} is not in the cache: ./dev setup fetches it`);
    try {
      await run(t);
    } catch (error) {
      if (!(error instanceof BrowserMissing)) throw error;
      missing(t, error.message);
    }
  });
}

/** The real page in a browser. `server` goes to serveChat, `browser` to the driver. */
export async function withPage(t, name, { server = {}, browser = {} }, run) {
  const site = await serveChat({ models: gguf, ...server });
  let driver;
  try {
    driver = await within(LONG_MS, `${name} starting`, startBrowser(name, browser));
    await run(new Page(driver, site));
  } catch (error) {
    if (driver && !(error instanceof BrowserMissing)) {
      t.diagnostic(`${name} ${driver.version}, console: ${JSON.stringify(driver.logs.slice(-10))}`);
      t.diagnostic(`page: ${await within(5000, 'its text', driver.evaluate('document.body.innerText')).catch(() => 'gone')}`);
    }
    throw error;
  } finally {
    if (driver) await within(LONG_MS, `${name} closing`, driver.close()).catch((error) => t.diagnostic(error.message));
    await site.close();
  }
}

/** The engine alone, on the harness page: evaluate() reaches window.SubbyteEngine. */
export async function withEngine(name, options, run) {
  const harness = await openHarness(name, { mounts: { '/models/': modelsFolder() }, ...options });
  try {
    await run(harness.browser, harness.server);
  } finally {
    await harness.close();
  }
}

export class Page {
  constructor(driver, site) {
    this.driver = driver;
    this.site = site;
  }

  evaluate(code, ...args) {
    return within(LONG_MS, String(code).slice(0, 200), this.driver.evaluate(code, ...args));
  }

  /** Opens the page; `query` are its parameters. Greedy unless asked otherwise, so that answers are the same every time. */
  async open(query = {}) {
    const search = new URLSearchParams({ temperature: '0', ...query });
    await this.driver.open(`${this.site.url}?${search}`);
  }

  /** Waits in the page until `condition` (a function sent there) gives something true, and returns that. */
  async until(condition, { ms = LONG_MS, what = String(condition) } = {}, ...args) {
    const end = Date.now() + ms;
    for (;;) {
      const value = await this.evaluate(condition, ...args);
      if (value) return value;
      if (Date.now() > end) throw new Error(`not within ${ms / 1000} s: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** The page's state, once it is one of `wanted`. */
  state(...wanted) {
    return this.until((states) => states.find((state) => document.body.dataset.state === state), { what: `state ${wanted}` }, wanted);
  }

  async ready() {
    const state = await this.state('ready', 'failed', 'answering');
    if (state === 'failed') assert.fail(`the model did not load: ${JSON.stringify(await this.trouble())}`);
    return this.state('ready');
  }

  text(testId) {
    return this.evaluate((id) => document.querySelector(`[data-testid="${id}"]`)?.textContent ?? null, testId);
  }

  data(testId, key) {
    return this.evaluate((id, name) => document.querySelector(`[data-testid="${id}"]`)?.dataset[name] ?? null, testId, key);
  }

  click(testId) {
    return this.evaluate((id) => {
      const found = [...document.querySelectorAll(`[data-testid="${id}"]`)].at(-1);
      if (!found) throw new Error(`no ${id} to click`);
      found.click();
    }, testId);
  }

  /** Types a question and sends it, as the form does. */
  ask(question) {
    return this.evaluate((text) => {
      const field = document.querySelector('[data-testid="prompt"]');
      field.value = text;
      field.dispatchEvent(new Event('input', { bubbles: true }));
      document.querySelector('[data-testid="send"]').click();
    }, question);
  }

  answers() {
    return this.evaluate(() => [...document.querySelectorAll('[data-testid="answer"]')].map((answer) => answer.textContent));
  }

  lastState() {
    return this.evaluate(() => [...document.querySelectorAll('[data-role="assistant"]')].at(-1)?.dataset.state ?? null);
  }

  /** Asks and returns the whole answer. */
  async answerTo(question) {
    const before = (await this.answers()).length;
    await this.ask(question);
    await this.until((n) => document.querySelectorAll('[data-testid="answer"]').length > n, { what: 'the question on the page' }, before);
    await this.state('ready');
    return (await this.answers()).at(-1);
  }

  /** Waits until the running answer has so many characters. */
  answered(length) {
    return this.until(
      (n) => document.body.dataset.state === 'answering' && [...document.querySelectorAll('[data-testid="answer"]')].at(-1).textContent.length >= n,
      { what: `${length} characters of an answer` },
      length,
    );
  }

  /** The failure on the page: {code, message, hint, buttons}. */
  trouble() {
    return this.evaluate(() => {
      const card = document.querySelector('[data-testid="error"]');
      if (!card) return null;
      const text = (id) => card.querySelector(`[data-testid="${id}"]`).textContent;
      const buttons = [...card.querySelectorAll('button')].map((button) => button.dataset.testid);
      return { code: card.dataset.code, message: text('error-message'), hint: text('error-hint'), buttons };
    });
  }
}
