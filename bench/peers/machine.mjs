// What the machine can do in this run: how fast it reads, and how it behaves with other work on it.
import os from 'node:os';
import path from 'node:path';
import { spawn } from 'node:child_process';

import { open } from '../ops/contender.mjs';

/** GB/s that `n` threads read of memory beyond their caches, each a probe of its own at the same time (the best of what each saw). */
export async function read_gb_s(build, n) {
  const probes = await Promise.all(Array.from({ length: n }, () => open(path.join(build, 'release'), 'native')));
  const answers = await Promise.all(probes.map((p) => p.ask('probe')));
  await Promise.all(probes.map((p) => p.close()));
  return answers.reduce((sum, a) => sum + a.read_gb_s, 0);
}

/** Runs `task` while a process a core computes without end. */
export async function while_busy(task) {
  const others = os.cpus().map(() => spawn(process.execPath, ['-e', 'for (let x = 0; ; ) x = Math.imul(x, 3) + 1;'], { stdio: 'ignore' }));
  try {
    return await task();
  } finally {
    for (const other of others) other.kill('SIGKILL');
  }
}
