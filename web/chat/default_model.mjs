// The page's default model is quantised on this machine: on the first start, in the background and at low priority, by the native command
// line, from the GGUF that the page chats with meanwhile and a stored allocation of bits. It gets its name when it is whole; what a
// stopped server left is taken up again.
//
// From start() to the end a FolderMaker owns TARGET.lock, so that two servers of one cache do not write one folder.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const SOURCE = 'SmolLM2-135M-Instruct.Q4_1.gguf';
export const QUANTISED = 'SmolLM2-135M-Instruct-mixed';

export const defaultModel = ({ models, cli, data }) =>
  new FolderMaker({
    title: 'SmolLM2-135M with 3.5 bits a weight',
    cli,
    source: join(models, SOURCE),
    target: join(models, QUANTISED),
    options: ['--bits', 'mixed', '--allocation', join(data, 'allocations/SmolLM2-135M-Instruct.json'), '--text', join(data, 'calibration.txt')],
  });

// A line of the command line's progress: "quantize     [######....]  60 %  1 min 20 s left".
const BAR = /^(\w+) +\[[#.]+\] +(\d+) % +(?:(\d+) min (\d+) s left)?/;

// A checkpoint that this source and these options cannot go on with.
const STALE = /kCheckpointForeign|kCheckpointInvalid|kSourceChanged/;

/** Whether `folder` is a whole quantised model: the index is what names everything else. */
export const isWhole = (folder) => existsSync(join(folder, 'subbyte.index.json'));

export class FolderMaker {
  #cli;
  #source;
  #target;
  #options;
  #lock;
  #child = null;
  #ownsLock = false;
  #status;

  /** `cli`: the built command line; `options`: of its `quantize`. */
  constructor({ title, cli, source, target, options }) {
    this.#cli = cli;
    this.#source = source;
    this.#target = target;
    this.#options = options;
    this.#lock = `${target}.lock`;
    this.#status = { state: 'none', name: title, phase: 'start', fraction: 0, leftMs: null };
  }

  /** What /quantising.json answers: web/chat/src/making.ts has its type. */
  status() {
    if (this.#status.state === 'running' && !this.#child && isWhole(this.#target)) this.#status.state = 'done'; // another server made it
    return this.#status;
  }

  /** Begins unless the model is there, or its source or the command line is not. */
  start() {
    if (isWhole(this.#target)) return void (this.#status.state = 'done');
    if (!this.#cli || !existsSync(this.#cli) || !existsSync(this.#source)) return;
    this.#status.state = 'running';
    if (this.#takeLock()) this.#run();
  }

  /** Resolves once the quantiser has kept what it has and ended. */
  async stop() {
    const child = this.#child;
    if (!child) return;
    this.#status.state = 'none';
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    await closed;
  }

  #run() {
    const partial = `${this.#target}.partial`;
    const resumes = existsSync(join(partial, 'checkpoint')); // of a server that was stopped
    const words = ['quantize', this.#source, this.#target, ...this.#options, ...(resumes ? ['--resume'] : [])];
    const child = (this.#child = spawn(this.#cli, words, { stdio: ['ignore', 'ignore', 'pipe'] }));
    child.once('spawn', () => {
      try {
        setPriority(child.pid, constants.priority.PRIORITY_BELOW_NORMAL); // the browser that chats has the same cores
      } catch {
        // Then it is as quick as the rest.
      }
    });
    const said = [];
    createInterface({ input: child.stderr }).on('line', (line) => {
      const far = BAR.exec(line);
      if (!far) return void said.push(line);
      const [, phase, percent, minutes, seconds] = far;
      const leftMs = minutes === undefined ? null : 1000 * (60 * Number(minutes) + Number(seconds));
      Object.assign(this.#status, { phase, fraction: Number(percent) / 100, leftMs });
    });
    child.once('error', (error) => this.#fail(error.message));
    child.once('close', (code, signal) => {
      this.#child = null;
      if (resumes && this.#status.state === 'running' && said.some((line) => STALE.test(line))) {
        rmSync(partial, { recursive: true });
        return this.#run();
      }
      this.#dropLock();
      if (this.#status.state !== 'running') return;
      if (code === 0 && isWhole(this.#target)) Object.assign(this.#status, { state: 'done', fraction: 1, leftMs: 0 });
      else this.#fail(said.slice(-3).join(' ') || `the quantiser ended with ${signal ?? `code ${code}`}`);
    });
  }

  #fail(message) {
    this.#dropLock();
    Object.assign(this.#status, { state: 'failed', error: { code: 'kInternal', message } });
  }

  #takeLock() {
    for (let attempt = 0; attempt < 2; attempt++) {
      try {
        const file = openSync(this.#lock, 'wx');
        writeSync(file, String(process.pid));
        closeSync(file);
        return (this.#ownsLock = true);
      } catch (error) {
        if (error.code !== 'EEXIST') return this.#fail(error.message), false;
        if (isAlive(Number(readFileSync(this.#lock, 'utf8')))) return false;
        rmSync(this.#lock, { force: true }); // of a server that was killed
      }
    }
    return false;
  }

  #dropLock() {
    if (this.#ownsLock) rmSync(this.#lock, { force: true });
    this.#ownsLock = false;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}
