// WebKitGTK: MiniBrowser through WebKitWebDriver, in the WebDriver protocol's own words over fetch, on a virtual display.
import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';

import { findProgram, freshProfile } from './program.mjs';

const MINI_BROWSERS = ['x86_64', 'aarch64'].map((cpu) => `/usr/lib/${cpu}-linux-gnu/webkit2gtk-4.1/MiniBrowser`);

// Gathers the console, because WebDriver has no events for it.
const WATCH = `
  if (!window.sbHarnessLogs) {
    window.sbHarnessLogs = [];
    for (const level of ['log', 'info', 'warn', 'error']) {
      const plain = console[level];
      console[level] = (...args) => { window.sbHarnessLogs.push([level, args.map(String).join(' ')]); plain.apply(console, args); };
    }
    addEventListener('error', (event) => window.sbHarnessLogs.push(['error', event.message]));
    addEventListener('unhandledrejection', (event) => window.sbHarnessLogs.push(['error', String(event.reason)]));
  }
  return window.sbHarnessLogs.splice(0);`;

const RUN = `
  const [code, isFunction, args, done] = arguments;
  Promise.resolve().then(() => (isFunction ? (0, eval)('(' + code + ')')(...args) : (0, eval)(code)))
    .then((value) => done({ value }), (error) => done({ error: String(error && error.stack ? error + '\\n' + error.stack : error) }));`;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// Xvfb picks a free display and writes its number to the descriptor when it is ready.
async function startDisplay() {
  const xvfb = spawn(findProgram('SUBBYTE_XVFB', ['Xvfb'], 'the package xvfb'), ['-displayfd', '3', '-screen', '0', '1280x1024x24', '-nolisten', 'tcp'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  for await (const line of createInterface({ input: xvfb.stdio[3] })) return { display: `:${line.trim()}`, stop: () => xvfb.kill() };
  throw new Error('Xvfb ended before it had a display');
}

export async function webkit({ onLog = () => {}, viewport } = {}) {
  const binary = findProgram('SUBBYTE_MINIBROWSER', MINI_BROWSERS, 'the package webkit2gtk-driver');
  const program = findProgram('SUBBYTE_WEBKITDRIVER', ['WebKitWebDriver'], 'the package webkit2gtk-driver');
  const screen = await startDisplay();
  const home = freshProfile('webkit');
  const port = await freePort();
  const driver = spawn(program, [`--port=${port}`, '--host=127.0.0.1'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    // A home of its own is its profile; there is no GPU. (WEBKIT_DISABLE_* would make screenshots wait for ever.)
    env: {
      ...process.env,
      DISPLAY: screen.display,
      HOME: home.path,
      XDG_CACHE_HOME: `${home.path}/cache`,
      XDG_DATA_HOME: `${home.path}/data`,
      XDG_CONFIG_HOME: `${home.path}/config`,
      GDK_BACKEND: 'x11',
      LIBGL_ALWAYS_SOFTWARE: '1',
      JSC_useSharedArrayBuffer: '1', // Safari gives it to isolated pages; under automation only when told
    },
  });
  let said = '';
  driver.stderr.on('data', (bytes) => (said += bytes));
  const stop = () => {
    process.off('exit', stop);
    driver.kill(); // and with it its browser
    screen.stop();
    home.remove();
  };
  process.on('exit', stop);

  async function command(method, path, body) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, ...(body ? { body: JSON.stringify(body) } : {}) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`WebDriver ${method} ${path}: ${value?.error}: ${value?.message}`);
    return value;
  }

  try {
    await ready(command, driver, () => said);
    const { sessionId, capabilities } = await command('POST', '/session', {
      capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': { binary, args: ['--automation'] } } },
    });
    const at = `/session/${sessionId}`;
    await command('POST', `${at}/timeouts`, { script: 3_600_000, pageLoad: 120_000 });
    if (viewport) await command('POST', `${at}/window/rect`, { width: viewport.width, height: viewport.height });
    const logs = [];
    const takeLogs = async () => {
      for (const [level, text] of await command('POST', `${at}/execute/sync`, { script: WATCH, args: [] })) {
        logs.push([level, text]);
        onLog(level, text);
      }
    };
    return {
      name: 'webkit',
      version: `${capabilities.browserName} ${capabilities.browserVersion}`,
      logs,
      async open(url) {
        await command('POST', `${at}/url`, { url });
        await takeLogs();
      },
      async evaluate(code, ...args) {
        const { value, error } = await command('POST', `${at}/execute/async`, {
          script: RUN,
          args: [String(code), typeof code === 'function', args],
        });
        await takeLogs();
        if (error) throw new Error(error);
        return value;
      },
      async screenshot(path) {
        await writeFile(path, Buffer.from(await command('GET', `${at}/screenshot`), 'base64'));
      },
      async close() {
        await command('DELETE', at).catch(() => {});
        stop();
      },
    };
  } catch (error) {
    stop();
    throw error;
  }
}

// The driver says nothing when it listens: ask until it answers, for as long as it runs.
async function ready(command, driver, said) {
  for (;;) {
    if (driver.exitCode !== null || driver.signalCode !== null) throw new Error(`WebKitWebDriver ended: ${said()}`);
    try {
      await command('GET', '/status');
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
