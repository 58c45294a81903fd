// A renderer's thread CPU time and memory, read from /proc, where neither other load nor the page's own clock enters.
import fs from 'node:fs';

const read = (file) => { try { return fs.readFileSync(file, 'utf8'); } catch { return ''; } };

function descendants(pid) {
  let threads = [];
  try { threads = fs.readdirSync(`/proc/${pid}/task`); } catch { /* it has just ended */ }
  const children = threads.flatMap((t) => read(`/proc/${pid}/task/${t}/children`).trim().split(/\s+/).filter(Boolean));
  return [pid, ...children.flatMap(descendants)];
}

/** What a process holds in RAM that no file backs: its heaps, and what it shares with the browser process. */
function anonymous_mib(pid) {
  const status = read(`/proc/${pid}/status`);
  const kib = (name) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0);
  return (kib('RssAnon') + kib('RssShmem')) / 1024;
}

/** What a process ever held in RAM, files that it maps included. */
export const peak_resident_mib = (pid) => Number(/VmHWM:\s+(\d+)/.exec(read(`/proc/${pid}/status`))?.[1]) / 1024;

/** Watches the renderer that holds the page: of all renderers (Chromium keeps a spare), the one with the most memory. */
export function watch_renderer(browser_pid) {
  let renderers = [], tick = 0, peak_mib = 0;
  const look = () => { renderers = descendants(browser_pid).filter((p) => read(`/proc/${p}/cmdline`).includes('--type=renderer')); };
  const sample = () => {
    if (tick < 50 ? tick % 5 === 0 : tick % 100 === 0) look(); // walking the process tree is the dear part
    tick++;
    for (const p of renderers) peak_mib = Math.max(peak_mib, anonymous_mib(p));
  };
  const timer = setInterval(sample, 200);
  return {
    pid: () => { if (!renderers.length) look(); return renderers.reduce((a, b) => (anonymous_mib(b) > anonymous_mib(a) ? b : a)); },
    peak_mib: () => { sample(); return peak_mib; },
    stop: () => clearInterval(timer),
  };
}

/** CPU time of a process's threads in ms. A thread that has ended takes its time with it: hold thread pools open while you measure. */
export function thread_cpu_ms(pid) {
  let ns = 0;
  try {
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) ns += Number(read(`/proc/${pid}/task/${task}/schedstat`).split(' ')[0]);
  } catch { return NaN; }
  return ns / 1e6;
}
