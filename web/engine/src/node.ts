// subbyte in Node: worker_threads instead of web workers, files from the disk beside URLs.
import './dispose.ts';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve as resolvePath } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';

import { EngineBase, isFolderPath, type Host, type OpenTarget } from './engine.ts';
import { failure, reasonOf, SubbyteError } from './errors.ts';
import { takeLock } from './folder_lock.ts';
import type { FromWorker, WorkerPort } from './messages.ts';
import type { EngineOptions, QuantizeTarget, Source } from './types.ts';

export { AnswerStream } from './answer.ts';
export { SubbyteError, type ErrorCode } from './errors.ts';
export { Model, type ModelEvents } from './model.ts';
export type * from './types.ts';

export class Engine extends EngineBase {
  /** Errors: kWasmUnsupported, kFileMissing (for the engine's own files), kOptionUnknown, kOptionInvalid. */
  static async create(options: EngineOptions = {}): Promise<Engine> {
    return new Engine(await EngineBase.start(nodeHost(options), options));
  }
}

function nodeHost(options: EngineOptions): Host {
  const base = options.assets ? new URL(options.assets, pathToFileURL(`${process.cwd()}/`)) : new URL('.', import.meta.url);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  return {
    surroundings: { isNode: true, crossOriginIsolated: true, hardwareThreads: availableParallelism() },
    whyNoGpu: async () => {
      if (globalThis.navigator?.gpu) return '';
      try {
        import.meta.resolve('webgpu');
        return '';
      } catch {
        return 'Node has no WebGPU of its own: npm install webgpu';
      }
    },
    spawn: () => nodeWorker(new URL('node_worker.js', base)),
    async compile(build, isQuantizer) {
      const file = fileURLToPath(new URL(`subbyte-${isQuantizer ? 'quantizer-' : ''}${build}.wasm`, base));
      const bytes = await readFile(file).catch((error: unknown) => {
        throw failure('kFileMissing', { file }, error);
      });
      return WebAssembly.compile(bytes).catch((error: unknown) => {
        throw failure('kWasmUnsupported', { why: reasonOf(error) }, error);
      });
    },
    resolve,
    openTarget,
  };
}

async function openTarget(target: QuantizeTarget): Promise<OpenTarget> {
  if (typeof target !== 'string') throw failure('kArgumentInvalid', { what: 'In Node a folder is written to a path', fix: 'Give one.' });
  const path = resolvePath(target);
  const partial = `${path}.partial`; // it gets its name when it is whole
  const checkFree = async () => {
    const isFree = await readdir(path).then((names) => names.length === 0, (error: NodeJS.ErrnoException) => error.code === 'ENOENT');
    if (!isFree) throw failure('kTargetExists', { target: path });
    // Of the command line, which can go on from it.
    const isResumable = await stat(join(partial, 'checkpoint')).then(() => true, () => false);
    if (isResumable) throw failure('kTargetExists', { target: partial });
  };
  const asFailure = (error: unknown) => (error instanceof SubbyteError ? error : failure('kWriteFailed', { file: path, why: reasonOf(error) }, error));
  await checkFree(); // before a file is made
  let unlock = async () => {};
  const undo = async () => {
    await rm(partial, { recursive: true, force: true });
    await unlock();
  };
  try {
    await mkdir(dirname(path), { recursive: true });
    unlock = await takeLock(`${partial}.lock`, path);
  } catch (error) {
    throw asFailure(error);
  }
  try {
    await checkFree(); // another run may have ended in between
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial);
  } catch (error) {
    await undo();
    throw asFailure(error);
  }
  return {
    source: { kind: 'path', path: partial, isFolder: true },
    async finish() {
      try {
        await rm(path, { recursive: true, force: true }); // an empty folder
        await rename(partial, path);
      } catch (error) {
        throw asFailure(error);
      }
      await unlock();
      return path;
    },
    undo,
  };
}

async function resolve(source: string | URL): Promise<Source> {
  const text = String(source);
  if (/^(https?|blob|data):/.test(text)) {
    const url = new URL(text);
    const isFolder = url.protocol.startsWith('http') && isFolderPath(url.pathname);
    if (isFolder && !url.pathname.endsWith('/')) url.pathname += '/';
    return { kind: 'url', url: url.href, isFolder };
  }
  const path = resolvePath(text.startsWith('file:') ? fileURLToPath(text) : text);
  const found = await stat(path).catch((error: unknown) => {
    throw failure('kFileMissing', { file: path }, error);
  });
  return { kind: 'path', path, isFolder: found.isDirectory() };
}

function nodeWorker(script: URL): WorkerPort {
  const worker = new Worker(script);
  let isEnding = false;
  worker.unref();
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer as never[]),
    onMessage: (listener) => void worker.on('message', (message: FromWorker) => listener(message)),
    onFailure: (listener) => {
      worker.on('error', (error) => listener(reasonOf(error)));
      worker.on('exit', (code) => isEnding || listener(`it exited with code ${code}`));
    },
    setBusy: (isBusy) => (isBusy ? worker.ref() : worker.unref()),
    terminate: () => {
      isEnding = true;
      void worker.terminate();
    },
  };
}
