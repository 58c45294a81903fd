// A build of ops_bench that answers requests (ops_bench.cc has their list): the native program, or its WebAssembly module in Node or in a
// browser.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setFlagsFromString } from 'node:v8';

/** A JSON answer, or an Error with what the bench refused. */
function parsed(line) {
  const answer = JSON.parse(line);
  if (answer.error) throw new Error(answer.error);
  return answer;
}

async function native(file) {
  const child = spawn(file, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async ask(request) {
      child.stdin.write(`${request}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`${file} ended (exit code ${child.exitCode ?? child.signalCode})`);
      return parsed(value);
    },
    close: async () => void child.stdin.end(),
  };
}

/** Runs here and in a page, so it sees nothing of this file: bytes → a function from request to answer. */
async function instantiate(bytes) {
  let memory;
  let answer = '';
  const text = (at, n) => new TextDecoder().decode(new Uint8Array(memory.buffer, at, n).slice());
  const { instance } = await WebAssembly.instantiate(bytes, {
    sb: {
      now_ms: () => performance.now(),
      log: (_level, at, n) => void (answer = text(at, n)),
      fatal: (at, n) => { throw new Error(text(at, n)); },
    },
  });
  ({ memory } = instance.exports);
  instance.exports._initialize();
  return (request) => {
    const at = instance.exports.sb_bench_request();
    new TextEncoder().encodeInto(`${request}\0`, new Uint8Array(memory.buffer, at, 256));
    instance.exports.sb_bench_answer();
    return answer;
  };
}

/** WebAssembly has no clock of its thread's: what the process took meanwhile, for each run. */
async function timed(cpuMs, answering) {
  const before = cpuMs();
  const answer = await answering();
  return answer.runs ? { ...answer, cpu_ms: (cpuMs() - before) / answer.runs } : answer;
}

async function node(file) {
  // Node 20 has relaxed SIMD behind a flag, which may be set as long as nothing has been compiled.
  if (Number(process.versions.node.split('.')[0]) < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');
  const ask = await instantiate(readFileSync(file));
  const cpuMs = () => (process.cpuUsage().user + process.cpuUsage().system) / 1e3;
  return { ask: (request) => timed(cpuMs, async () => parsed(ask(request))), close: async () => {} };
}

async function inBrowser(name, file) {
  // Only here: the native bench needs no npm packages.
  const { startBrowser } = await import('../../web/harness/browser.mjs');
  const { serve } = await import('../../web/harness/serve.mjs');
  const server = await serve({ mounts: { '/ops_bench.wasm': file }, routes: { '/': () => ({}) } });
  const browser = await startBrowser(name);
  await browser.open(server.url);
  await browser.evaluate(`(async () => {
    window.ask = await (${instantiate})(await (await fetch('/ops_bench.wasm')).arrayBuffer());
  })()`);
  const ask = async (request) => parsed(await browser.evaluate((line) => window.ask(line), request));
  let renderer;
  if (name === 'chromium') {
    const { thread_cpu_ms, watch_renderer } = await import('../peers/renderer.mjs');
    renderer = { ...watch_renderer(String(browser.page.browser().process().pid)), thread_cpu_ms };
  }
  return {
    ask: (request) => (renderer ? timed(() => renderer.thread_cpu_ms(renderer.pid()), () => ask(request)) : ask(request)),
    async close() {
      renderer?.stop();
      await browser.close();
      await server.close();
    },
  };
}

export const hosts = ['native', 'node', 'chromium', 'firefox', 'webkit'];

/** The bench of a build folder (build/release, build/relaxed …) on one of `hosts`. */
export async function open(folder, host) {
  const file = join(folder, host === 'native' ? 'bench/ops/ops_bench' : 'bench/ops/ops_bench.wasm');
  if (!existsSync(file)) throw new Error(`${file} is not there: build the target ops_bench in ${folder}`);
  return host === 'native' ? native(file) : host === 'node' ? node(file) : inBrowser(host, file);
}

/** The host for a folder when none is named: WebAssembly builds run in Chromium. */
export const hostOf = (folder) => (existsSync(join(folder, 'bench/ops/ops_bench.wasm')) ? 'chromium' : 'native');
