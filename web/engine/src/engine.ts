// The engine: which build, how many threads, and a worker for each model.
import { camelKeys } from './answer.ts';
import { Client, type Platform } from './client.ts';
import { failure } from './errors.ts';
import { engineOptionNames, modelOptionNames } from './generated/options.ts';
import { coreOptions, Model } from './model.ts';
import { pick, type Surroundings } from './pick.ts';
import type { Build, Capabilities, EngineOptions, LoadOptions, ModelSource, Source } from './types.ts';

/** What differs between a page and Node. */
export interface Host extends Platform {
  surroundings: Surroundings;
  compile(build: Build): Promise<WebAssembly.Module>;
  /** Makes a string absolute: a URL, or a path. */
  resolve(source: string | URL): Promise<Source>;
}

type Started = Awaited<ReturnType<typeof Client.start>>;

const blobName = (blob: Blob) => (typeof File !== 'undefined' && blob instanceof File ? blob.name : 'model.gguf');

// The folder that the user chose is the first part of every path in it.
const pathInFolder = (file: File) => (file.webkitRelativePath ? file.webkitRelativePath.split('/').slice(1).join('/') : file.name);

interface Parts {
  host: Host;
  module: WebAssembly.Module;
  threads: number;
  options: string;
  capabilities: Capabilities;
  /** A worker that no model has taken yet. */
  spare: Started;
}

export class EngineBase implements AsyncDisposable {
  readonly capabilities: Capabilities;
  readonly #parts: Parts;
  readonly #models = new Set<Model>();
  #spare: Started | null;
  #isDisposed = false;

  /** Engines come from Engine.create(). */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#spare = parts.spare;
    this.capabilities = parts.capabilities;
  }

  protected static async start(host: Host, options: EngineOptions): Promise<Parts> {
    const { wasm = 'auto', threads: wanted = 0 } = options;
    if (!Number.isInteger(wanted) || wanted < 0 || wanted > 64) {
      throw failure('kOptionInvalid', { option: 'threads', value: String(wanted), expected: 'a whole number from 0 to 64' });
    }
    const chosen = pick(host.surroundings, wasm, wanted);
    const module = await host.compile(chosen.build);
    const core = coreOptions({ ...options, threads: chosen.threads }, engineOptionNames, ['wasm', 'assets']);
    // Started now, for what it says of itself; the first model takes it.
    const spare = await Client.start(host, module, chosen.threads, core);
    const { version: _, threadsWhy: __, ...said } = camelKeys<Record<string, unknown>>(spare.capabilities);
    const capabilities = {
      ...said,
      ...chosen,
      threads: Number(said['threads'] ?? chosen.threads),
      crossOriginIsolated: host.surroundings.crossOriginIsolated,
    } as unknown as Capabilities;
    return { host, module, threads: chosen.threads, options: core, capabilities, spare };
  }

  /**
   * Loads a model. Errors: kHttpStatus, kDownloadFailed, kNotAModel, kModelTruncated, kModelCorrupt, kArchitectureUnknown and others of
   * the core; an AbortError when `signal` fires.
   */
  async load(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
    if (this.#isDisposed) throw failure('kSessionClosed', { what: 'engine' });
    options.signal?.throwIfAborted();
    const from = await this.#describe(source);
    const spare = this.#spare;
    this.#spare = null;
    const { host, module, threads, options: engineOptions } = this.#parts;
    const { client } = spare && !spare.client.isBroken ? spare : await Client.start(host, module, threads, engineOptions);
    try {
      const core = coreOptions(options, modelOptionNames, ['onProgress', 'signal', 'cache'], {
        file: nameOf(from),
        container: from.kind === 'folder' || ('isFolder' in from && from.isFolder) ? 'folder' : 'gguf',
      });
      const cache = options.cache ?? 'default';
      const { signal, onProgress } = options;
      const info = await client.ask<object>({ type: 'load', source: from, options: core, cache }, { signal, onProgress });
      const model: Model = new Model(client, info, () => this.#models.delete(model));
      this.#models.add(model);
      return model;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  async dispose(): Promise<void> {
    this.#isDisposed = true;
    const spare = this.#spare;
    this.#spare = null;
    await Promise.all([spare?.client.close(), ...[...this.#models].map((model) => model.dispose())]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #describe(source: ModelSource): Promise<Source> {
    if (typeof source === 'string' || source instanceof URL) return this.#parts.host.resolve(source);
    const blobs = Array.isArray(source) ? source : [source];
    if (!blobs.length || !blobs.every((blob) => blob instanceof Blob)) {
      throw failure('kArgumentInvalid', { what: 'A model is a URL, a File, a Blob or a list of them', fix: 'Pass one of these.' });
    }
    const files = blobs.filter((blob) => blob instanceof File);
    if (files.some((file) => pathInFolder(file) === 'config.json')) {
      return { kind: 'folder', files: files.map((file) => ({ name: pathInFolder(file), blob: file })) };
    }
    return { kind: 'blobs', name: blobName(blobs[0]!), blobs };
  }
}

/** Folders have no extension, and may end with a slash. */
export function isFolderPath(path: string): boolean {
  const last = path.slice(path.lastIndexOf('/') + 1);
  return last === '' || !last.includes('.');
}

function nameOf(source: Source): string {
  switch (source.kind) {
    case 'url':
      return source.url;
    case 'path':
      return source.path;
    case 'blobs':
      return source.name;
    case 'folder':
      return 'the chosen folder';
  }
}
