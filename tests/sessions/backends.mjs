// Where a script runs. A backend is { ask(request) → answer, bytes() → what its processes hold, or null where nobody says, close() },
// and finds models at `places`: name → folder on this machine.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { nodeEngine, openHarness } from '../../web/harness/backend.mjs';
import { webSession } from './web_session.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');

export const backendNames = ['native', 'node', 'chromium', 'firefox', 'webkit'];

/** @param {{ program?: string, wasm?: string, threads?: number, device?: string, places: Record<string, string> }} options */
export function openBackend(name, options) {
  if (name === 'native') return openNative(options);
  return name === 'node' ? openNode(options) : openBrowser(name, options);
}

const presetOf = ({ wasm, threads, device }) => ({ ...(wasm ? { wasm } : {}), ...(threads === undefined ? {} : { threads }), ...(device ? { device, fallback: false } : {}) }); // not another one instead
const onDisk = (places) => (place, file) => join(places[place], file);

async function openNative({ program = join(root, 'build/release/apps/cli/subbyte'), threads, device, places }) {
  const child = spawn(program, ['session'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = [];
  let why = null;
  const end = (reason) => {
    why ??= reason;
    for (const { reject } of waiting.splice(0)) reject(new Error(why));
  };
  child.on('error', (error) => end(`${program}: ${error.message}`));
  child.on('exit', (code, signal) => end(`subbyte session ended with ${signal ?? code}`));
  child.stdin.on('error', () => {}); // its exit says more
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.resolve(JSON.parse(line)));
  return {
    find: onDisk(places),
    bytes: async () => residentBytes([child.pid]),
    ask: (request) =>
      new Promise((resolve, reject) => {
        if (why) return reject(new Error(why));
        waiting.push({ resolve, reject });
        const preset = request.op === 'load' ? { engine: { ...presetOf({ threads, device }), ...request.engine } } : {};
        child.stdin.write(`${JSON.stringify({ ...request, ...preset })}\n`);
      }),
    async close() {
      if (why) return;
      const over = new Promise((resolve) => child.once('exit', resolve));
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      await over;
      clearTimeout(timer);
    },
  };
}

async function openNode(options) {
  const { Engine } = await nodeEngine(options);
  const ask = webSession(Engine, presetOf(options));
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  return {
    find: onDisk(options.places),
    ask,
    async bytes() {
      collect();
      return residentBytes([process.pid]);
    },
    close: () => ask({ op: 'close' }),
  };
}

async function openBrowser(name, { places, ...options }) {
  const mounts = Object.fromEntries(Object.entries(places).map(([place, folder]) => [`/${place}/`, folder]));
  const harness = await openHarness(name, { mounts: { '/sessions/': here, ...mounts }, browserOptions: { gpu: options.device === 'webgpu' } });
  const { browser, server } = harness;
  try {
    await browser.open(`${server.url}sessions/page.html`);
    await browser.evaluate(() => new Promise((ready) => (window.isReady ? ready() : addEventListener('load', () => ready()))));
    await browser.evaluate((preset) => window.begin(preset), presetOf(options));
  } catch (error) {
    await harness.close();
    throw error;
  }
  const main = browser.page?.browser().process()?.pid;
  return {
    find: (place, file) => `/${place}/${encodeURIComponent(file)}`,
    ask: async (request) => JSON.parse(await browser.evaluate((text) => window.ask(text), JSON.stringify(request))),
    async bytes() {
      if (name !== 'chromium') return null;
      const devtools = await browser.page.createCDPSession();
      await devtools.send('HeapProfiler.collectGarbage');
      await devtools.detach();
      return residentBytes(withChildren(main));
    },
    close: () => harness.close(),
  };
}

/** Resident bytes of processes; null where there is no /proc. */
function residentBytes(pids) {
  try {
    return pids.reduce((sum, pid) => sum + 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0), 0);
  } catch {
    return null;
  }
}

function withChildren(pid) {
  const parents = new Map();
  for (const entry of readdirSync('/proc').filter((e) => /^\d+$/.test(e))) {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // it has just ended
    }
  }
  const family = [pid];
  for (const member of family) for (const [child, parent] of parents) if (parent === member) family.push(child);
  return family;
}
