// subbyte in a page.
import './dispose.ts';
import { EngineBase, isFolderPath, type Host } from './engine.ts';
import { failure, reasonOf } from './errors.ts';
import type { FromWorker, WorkerPort } from './messages.ts';
import type { Build, EngineOptions } from './types.ts';

export { AnswerStream } from './answer.ts';
export { SubbyteError, type ErrorCode } from './errors.ts';
export { Model } from './model.ts';
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
    'relaxed-threads': asset('subbyte-relaxed-threads.wasm') ?? new URL('./subbyte-relaxed-threads.wasm', import.meta.url),
  };
  return {
    surroundings: {
      isNode: false,
      crossOriginIsolated: globalThis.crossOriginIsolated === true,
      hardwareThreads: navigator.hardwareConcurrency || 1,
    },
    spawn: () => pageWorker(asset('worker.js')),
    compile: (build) => compile(modules[build]),
    async resolve(source) {
      const url = new URL(source, location.href);
      return { kind: 'url', url: folderUrl(url), isFolder: isFolder(url) };
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
