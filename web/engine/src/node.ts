// subbyte in Node: worker_threads instead of web workers, files from the disk beside URLs.
import './dispose.ts';
import { readFile, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { resolve as resolvePath } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';

import { EngineBase, isFolderPath, type Host } from './engine.ts';
import { failure, reasonOf } from './errors.ts';
import type { FromWorker, WorkerPort } from './messages.ts';
import type { EngineOptions, Source } from './types.ts';

export { AnswerStream } from './answer.ts';
export { SubbyteError, type ErrorCode } from './errors.ts';
export { Model } from './model.ts';
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
    spawn: () => nodeWorker(new URL('node_worker.js', base)),
    async compile(build) {
      const file = fileURLToPath(new URL(`subbyte-${build}.wasm`, base));
      const bytes = await readFile(file).catch((error: unknown) => {
        throw failure('kFileMissing', { file }, error);
      });
      return WebAssembly.compile(bytes).catch((error: unknown) => {
        throw failure('kWasmUnsupported', { why: reasonOf(error) }, error);
      });
    },
    resolve,
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
