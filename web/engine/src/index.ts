// subbyte in a page.
import './dispose.ts';
import { EngineBase, isFolderPath, type Host, type OpenTarget } from './engine.ts';
import { failure, reasonOf } from './errors.ts';
import { findAdapter } from './gpu.ts';
import type { FromWorker, WorkerPort } from './messages.ts';
import { INDEX_FILE } from './shards.ts';
import { tune } from './tuning.ts';
import type { Build, EngineOptions, QuantizeTarget } from './types.ts';

export { AnswerStream } from './answer.ts';
export { SubbyteError, type ErrorCode } from './errors.ts';
export { Model, type ModelEvents } from './model.ts';
export type * from './types.ts';

export class Engine extends EngineBase {
  /** Errors: kWasmUnsupported, kDownloadFailed, kHttpStatus (for the engine's own files), kOptionUnknown, kOptionInvalid. */
  static async create(options: EngineOptions = {}): Promise<Engine> {
    return new Engine(await EngineBase.start(pageHost(options), options));
  }
}

function pageHost(options: EngineOptions): Host {
  const base = options.assets ? new URL(options.assets, location.href) : null;
  if (base && !base.pathname.endsWith('/')) base.pathname += '/';
  const asset = (name: string) => (base ? new URL(name, base) : null);
  // Spelt out one by one: bundlers find and move files only by this very phrase.
  const modules: Record<Build, URL> = {
    simd: asset('subbyte-simd.wasm') ?? new URL('./subbyte-simd.wasm', import.meta.url),
    relaxed: asset('subbyte-relaxed.wasm') ?? new URL('./subbyte-relaxed.wasm', import.meta.url),
    'simd-threads': asset('subbyte-simd-threads.wasm') ?? new URL('./subbyte-simd-threads.wasm', import.meta.url),
    'relaxed-threads': asset('subbyte-relaxed-threads.wasm') ?? new URL('./subbyte-relaxed-threads.wasm', import.meta.url),
  };
  const quantizers: Record<Build, URL> = {
    simd: asset('subbyte-quantizer-simd.wasm') ?? new URL('./subbyte-quantizer-simd.wasm', import.meta.url),
    relaxed: asset('subbyte-quantizer-relaxed.wasm') ?? new URL('./subbyte-quantizer-relaxed.wasm', import.meta.url),
    'simd-threads': asset('subbyte-quantizer-simd-threads.wasm') ?? new URL('./subbyte-quantizer-simd-threads.wasm', import.meta.url),
    'relaxed-threads': asset('subbyte-quantizer-relaxed-threads.wasm') ?? new URL('./subbyte-quantizer-relaxed-threads.wasm', import.meta.url),
  };
  return {
    surroundings: {
      isNode: false,
      crossOriginIsolated: globalThis.crossOriginIsolated === true,
      hardwareThreads: navigator.hardwareConcurrency || 1,
    },
    whyNoGpu,
    spawn: () => pageWorker(asset('worker.js')),
    compile: (build, isQuantizer) => compile((isQuantizer ? quantizers : modules)[build]),
    openTarget,
    tune,
    async resolve(source) {
      const url = new URL(source, location.href);
      return { kind: 'url', url: folderUrl(url), isFolder: isFolder(url) };
    },
  };
}

// Asked here, because an engine that finds no GPU has started a worker and a build for nothing; what a GPU is worth, the core says.
async function whyNoGpu(): Promise<string> {
  if (!navigator.gpu) return 'this browser has no WebGPU, or has it switched off';
  return findAdapter(navigator.gpu).then(() => '', reasonOf);
}

const UNDO_TIMES = 20;
const UNDO_MS = 100;
const TARGETS = 'subbyte-models'; // the folder of the site's storage in which named targets are

/** Keeps other runs of this site off a named target until what comes back is called, or the tab is gone. Errors: kTargetBusy. */
function takeLock(name: string): Promise<() => void> {
  return new Promise((resolve, reject) => {
    if (!navigator.locks) return resolve(() => {}); // where there is no storage either, which is told then
    const held = navigator.locks.request(`subbyte ${TARGETS}/${name}`, { ifAvailable: true }, (lock) => {
      if (!lock) throw failure('kTargetBusy', { target: name, who: 'an engine of this site, here or in another tab' });
      return new Promise<void>((release) => resolve(release));
    });
    held.catch(reject);
  });
}

async function openTarget(target: QuantizeTarget): Promise<OpenTarget> {
  const unlock = typeof target === 'string' ? await takeLock(target) : () => {};
  try {
    const open = await openUnlocked(target);
    return {
      source: open.source,
      async finish() {
        const folder = await open.finish();
        unlock();
        return folder;
      },
      undo: () => open.undo().finally(unlock),
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

async function openUnlocked(target: QuantizeTarget): Promise<OpenTarget> {
  let parent: FileSystemDirectoryHandle | null = null;
  let handle: FileSystemDirectoryHandle;
  try {
    if (typeof target === 'string') {
      parent = await (await navigator.storage.getDirectory()).getDirectoryHandle(TARGETS, { create: true });
      handle = await parent.getDirectoryHandle(target, { create: true });
    } else {
      handle = target;
    }
  } catch (error) {
    throw failure('kWriteFailed', { file: typeof target === 'string' ? target : target.name, why: reasonOf(error) }, error);
  }
  const entries = handle as FileSystemDirectoryHandle & { keys(): AsyncIterable<string> };
  const clear = async () => {
    for await (const name of entries.keys()) await handle.removeEntry(name, { recursive: true });
  };
  // The index is written last: a folder without it is what a tab left that was closed in the middle.
  const isModel = await handle.getFileHandle(INDEX_FILE).then(() => true, () => false);
  if (isModel) throw failure('kTargetExists', { target: handle.name });
  if (parent) await clear(); // nobody else's: the lock is ours
  else for await (const _ of entries.keys()) throw failure('kTargetExists', { target: handle.name });
  return {
    source: { kind: 'handle', handle },
    finish: async () => handle,
    async undo() {
      // A worker that was ended in the middle of a step holds its files a little longer. What stays has no index: it is no model, and the
      // next one of this name clears it.
      for (let attempt = 0; attempt < UNDO_TIMES; attempt++) {
        try {
          await clear();
          return await parent?.removeEntry(handle.name);
        } catch {
          await new Promise((resolve) => setTimeout(resolve, UNDO_MS));
        }
      }
    },
  };
}

const isFolder = (url: URL) => url.protocol !== 'blob:' && url.protocol !== 'data:' && isFolderPath(url.pathname);

function folderUrl(url: URL): string {
  if (isFolder(url) && !url.pathname.endsWith('/')) url.pathname += '/';
  return url.href;
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw failure('kDownloadFailed', { url: url.href, why: reasonOf(error) }, error);
  }
  if (!response.ok) throw failure('kHttpStatus', { url: url.href, status: response.status });
  try {
    // Servers that do not know application/wasm are common; compiling from bytes does not ask.
    if (response.headers.get('content-type')?.startsWith('application/wasm')) return await WebAssembly.compileStreaming(response);
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (error) {
    if (error instanceof WebAssembly.CompileError) throw failure('kWasmUnsupported', { why: reasonOf(error) }, error);
    throw failure('kDownloadFailed', { url: url.href, why: reasonOf(error) }, error);
  }
}

function pageWorker(elsewhere: URL | null): WorkerPort {
  let worker: Worker;
  if (!elsewhere) {
    worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'subbyte' });
  } else if (elsewhere.origin === location.origin) {
    worker = new Worker(elsewhere, { type: 'module', name: 'subbyte' });
  } else {
    // A worker's script must be of the page's origin; what it imports need not be.
    const start = URL.createObjectURL(new Blob([`import ${JSON.stringify(elsewhere.href)};`], { type: 'text/javascript' }));
    worker = new Worker(start, { type: 'module', name: 'subbyte' });
  }
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    onMessage: (listener) => (worker.onmessage = (event: MessageEvent<FromWorker>) => listener(event.data)),
    onFailure: (listener) => {
      worker.onerror = (event) => {
        event.preventDefault?.();
        listener(event.message || 'its script could not be loaded');
      };
      worker.onmessageerror = () => listener('a message could not be read');
    },
    terminate: () => worker.terminate(),
  };
}
