// Browsers as the bench needs them: pages served with the headers that threads want, one fresh profile a contender. Of Chromium also the renderer's
// thread CPU time and memory, read from /proc, where neither other load nor the page's own clock enters.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import puppeteer from 'puppeteer-core';

import { thread_cpu_ms, watch_renderer } from './renderer.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' };
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-dev-shm-usage'];

export function chromium() {
  const found = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((f) => f && fs.existsSync(f));
  return found ?? null;
}

/** One range of bytes, as `Range: bytes=a-b` asks; null for the whole file. */
function range_of(header, size) {
  const m = /^bytes=(\d+)-(\d*)$/.exec(header ?? '');
  return m ? { start: Number(m[1]), end: Math.min(m[2] === '' ? size - 1 : Number(m[2]), size - 1) } : null;
}

/** Serves `folders` ({'/prefix/': folder}) on loopback. Resolves to {base, close}. */
export async function serve(folders) {
  const find = (url) => {
    if (url === '/') return path.join(here, 'page.html');
    const prefix = Object.keys(folders).find((p) => url.startsWith(p));
    const file = prefix && path.join(folders[prefix], path.normalize('/' + url.slice(prefix.length)));
    return file && fs.existsSync(file) && fs.statSync(file).isFile() ? file : null;
  };
  const server = http.createServer((request, response) => {
    const file = find(decodeURIComponent(request.url.split('?')[0]));
    if (!file) return response.writeHead(404).end();
    const { size, mtimeMs } = fs.statSync(file);
    const range = range_of(request.headers.range, size);
    response.writeHead(range ? 206 : 200, {
      'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      'content-length': range ? range.end - range.start + 1 : size,
      ...(range ? { 'content-range': `bytes ${range.start}-${range.end}/${size}` } : {}),
      'accept-ranges': 'bytes', etag: `"${size}-${Math.round(mtimeMs)}"`, 'cache-control': 'public, max-age=3600',
      'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp', 'cross-origin-resource-policy': 'same-origin',
    });
    if (request.method === 'HEAD') return response.end();
    fs.createReadStream(file, range ?? undefined).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { base: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close(); } };
}

/** Those whose profile stays when they end keep what a page has stored. */
export const BROWSERS = ['chromium', 'firefox', 'webkit'];
export const keeps_storage = (browser) => browser !== 'webkit';

async function start_chromium(profile) {
  const browser = await puppeteer.launch({ executablePath: chromium(), headless: true, userDataDir: profile, protocolTimeout: 900_000, args: FLAGS });
  const renderer = watch_renderer(String(browser.process().pid));
  const page = await browser.newPage();
  const logs = [];
  page.on('pageerror', (e) => logs.push(['error', e.message]));
  page.on('console', (m) => logs.push([m.type(), m.text()]));
  await page.exposeFunction('cpu_ms', () => thread_cpu_ms(renderer.pid()));
  return {
    logs, open: (url) => page.goto(url, { waitUntil: 'domcontentloaded' }), evaluate: (code, ...args) => page.evaluate(code, ...args),
    peak_mib: renderer.peak_mib, peak_how: 'peak RssAnon + RssShmem of the renderer process, sampled every 200 ms, load to last token',
    close: async () => { renderer.stop(); await browser.close().catch(() => {}); },
  };
}

async function start(browser, profile) {
  if (browser === 'chromium') return start_chromium(profile);
  const { startBrowser } = await import('../../web/harness/browser.mjs');
  return startBrowser(browser, keeps_storage(browser) ? { profile } : {});
}

/** Opens the bench page with `adapter` in a browser of its own on `profile`; resolves when the model has given its first answer. */
export async function open_page({ browser: name, base, adapter, model, threads, context, profile, proof }) {
  const browser = await start(name, profile);
  try {
    const query = new URLSearchParams({ adapter, model, threads, context, prompt: proof.prompt, n: proof.n });
    await browser.open(`${base}/?${query}`);
    const { started, failed } = await browser.evaluate(() => new Promise((resolve) => {
      const timer = setInterval(() => {
        if (!window.started && !window.failed) return;
        clearInterval(timer);
        resolve({ started: window.started, failed: window.failed });
      }, 100);
    }));
    if (failed) throw new Error([failed, ...browser.logs.filter(([level]) => level === 'error').map(([, text]) => text)].join('\n'));
    return {
      ...started,
      complete: (prompt, n) => browser.evaluate((p, k) => window.complete(p, k), prompt, n),
      peak_mib: browser.peak_mib, peak_how: browser.peak_how,
      stop: () => browser.close(),
    };
  } catch (e) {
    await browser.close();
    throw e;
  }
}

const profiles = new Set();
process.on('exit', () => { for (const p of profiles) drop_profile(p); }); // an interrupted run leaves no model copies behind

export function fresh_profile() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'subbyte-peers-'));
  profiles.add(folder);
  return folder;
}

export function drop_profile(folder) {
  profiles.delete(folder);
  try { fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }); } catch { /* the browser is still writing; it is in the system's temporary folder */ }
}
