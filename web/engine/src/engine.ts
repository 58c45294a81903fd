// The engine: which build, how many threads, and a worker for each model.
import { camelKeys } from './answer.ts';
import { Client, type Platform, type Setup } from './client.ts';
import { failure, SubbyteError } from './errors.ts';
import { errorRows } from './generated/errors.ts';
import { engineOptionNames, modelOptionNames, quantizeOptionNames } from './generated/options.ts';
import type { QuantizeJob } from './messages.ts';
import { coreOptions, Model } from './model.ts';
import { pick, type Pick, type Surroundings } from './pick.ts';
import type { Tune } from './tuning.ts';
import type {
  Build,
  Capabilities,
  EngineOptions,
  GpuInfo,
  LoadOptions,
  Measured,
  ModelSource,
  Quantized,
  QuantizeOptions,
  QuantizeProgress,
  QuantizeTarget,
  Source,
} from './types.ts';

/** What differs between a page and Node. */
export interface Host extends Platform {
  surroundings: Surroundings;
  /** Why there can be no GPU, without looking for one; empty when there may be. */
  whyNoGpu(): Promise<string>;
  /** The module that answers, or the larger one that can also quantise. */
  compile(build: Build, isQuantizer: boolean): Promise<WebAssembly.Module>;
  /** How many threads answer soonest; absent where nobody measures. */
  tune?: Tune;
  /** Makes room for a folder. Errors: kTargetExists, kTargetBusy, kWriteFailed. */
  openTarget(target: QuantizeTarget): Promise<OpenTarget>;
  /** Makes a string absolute: a URL, or a path. */
  resolve(source: string | URL): Promise<Source>;
}

/** A folder that is being written: it gets its name when it is whole, or goes. */
export interface OpenTarget {
  source: Source;
  finish(): Promise<Quantized['folder']>;
  undo(): Promise<void>;
}

/** What a start needs, and how that was chosen. */
interface Plan extends Setup {
  compiled: Promise<WebAssembly.Module>;
  chosen: Pick;
  measured: Measured[];
}

type Started = Awaited<ReturnType<typeof Client.start>>;

/** Why device "auto" is the CPU in this page or process; empty while that is not known. */
let noGpu = '';

/** Of this package, put in when it is built. */
declare const VERSION: string;

/** Options of an engine that are not the core's. */
const OURS = ['wasm', 'assets', 'retune'];

const blobName = (blob: Blob) => (typeof File !== 'undefined' && blob instanceof File ? blob.name : 'model.gguf');

// The folder that the user chose is the first part of every path in it.
const pathInFolder = (file: File) => (file.webkitRelativePath ? file.webkitRelativePath.split('/').slice(1).join('/') : file.name);

interface Parts {
  host: Host;
  asked: EngineOptions;
  module: WebAssembly.Module;
  threads: number;
  options: string;
  capabilities: Capabilities;
  /** A worker that no model has taken yet. */
  spare: Started;
}

export class EngineBase implements AsyncDisposable {
  #parts: Parts;
  readonly #models = new Set<Model>();
  readonly #quantizers = new Set<Client>();
  #quantizerModule: Promise<WebAssembly.Module> | null = null;
  #spare: Started | null;
  #isDisposed = false;

  /** Engines come from Engine.create(). */
  constructor(parts: Parts) {
    this.#parts = parts;
    this.#spare = parts.spare;
  }

  /** Where models run, and why not elsewhere. Another object once a model could not run on the GPU: later ones run on the CPU. */
  get capabilities(): Capabilities {
    return this.#parts.capabilities;
  }

  protected static async start(host: Host, options: EngineOptions): Promise<Parts> {
    const { device = 'auto', isa = 'auto', rounded = false } = options as { device?: string; isa?: string; rounded?: boolean };
    // Whoever chooses kernels of the CPU means the CPU.
    if (device === 'cpu' || (device === 'auto' && (isa !== 'auto' || rounded))) return EngineBase.startOn(host, options, '');
    if (device === 'auto') noGpu ||= await host.whyNoGpu();
    if (device === 'auto' && noGpu) return EngineBase.startOn(host, options, noGpu);
    const parts = await EngineBase.startOn(host, options, null);
    if (parts.capabilities.device !== 'cpu') return parts;
    // The CPU has builds of its own.
    const { deviceWhy } = parts.capabilities;
    if (device === 'auto') noGpu = deviceWhy;
    await parts.spare.client.close();
    return EngineBase.startOn(host, options, deviceWhy);
  }

  /** `whyCpu`: null for the GPU, if there is one; else why it is the CPU, '' where that was asked for. */
  private static async startOn(host: Host, asked: EngineOptions, whyCpu: string | null): Promise<Parts> {
    const options = whyCpu === null ? asked : { ...asked, device: 'cpu' as const };
    const { threads: wanted = 0 } = options;
    if (!Number.isInteger(wanted) || wanted < 0 || wanted > 64) {
      throw failure('kOptionInvalid', { option: 'threads', value: String(wanted), expected: 'a whole number from 0 to 64' });
    }
    const planned = EngineBase.plan(host, options, whyCpu === null);
    // Started now, for what it says of itself; the first model takes it.
    const spare = await Client.start(host, planned);
    const { chosen, compiled, options: core, measured } = await planned;
    const module = await compiled;
    const { version: _, threadsWhy: __, ...said } = camelKeys<Record<string, unknown>>(spare.capabilities);
    const capabilities = {
      ...said,
      ...(said['gpu'] ? { gpu: camelKeys<GpuInfo>(said['gpu']) } : {}),
      ...(whyCpu === null ? {} : { deviceWhy: whyCpu }),
      ...chosen,
      measured,
      threads: Number(said['threads'] ?? chosen.threads),
      crossOriginIsolated: host.surroundings.crossOriginIsolated,
    } as unknown as Capabilities;
    return { host, asked, module, threads: chosen.threads, options: core, capabilities, spare };
  }

  /** Which build, compiled, and how many threads. */
  private static async plan(host: Host, options: EngineOptions, isOnGpu: boolean): Promise<Plan> {
    const { wasm = 'auto', threads: wanted = 0 } = options;
    const core = (threads: number) => coreOptions({ ...options, threads }, engineOptionNames, OURS);
    const planned = (chosen: Pick, compiled: Plan['compiled'], measured: Measured[]): Plan => ({
      chosen, compiled, threads: chosen.threads, options: core(chosen.threads), measured,
    });
    const chosen = pick(host.surroundings, wasm, wanted, isOnGpu);
    const compiled = host.compile(chosen.build, false);
    if (!host.tune || wanted > 0 || chosen.threads === 1) return planned(chosen, compiled, []);
    compiled.catch(() => {}); // told to those who wait for it, soon
    const measure = async (threads: number): Promise<Measured[]> => {
      const { client } = await Client.start(host, { compiled, threads, options: core(threads) });
      try {
        const said = await client.ask<{ measured: object[] }>({ type: 'call', call: { name: 'tuning' } });
        return said.measured.map((row) => camelKeys<Measured>(row));
      } finally {
        await client.close();
      }
    };
    const what = `${VERSION}-${chosen.build}-${options.isa ?? 'auto'}`;
    const { threads, measured } = await host.tune(what, chosen.threads, options.retune === true, measure);
    const tuned = pick(host.surroundings, wasm, threads, false, 'measured to answer soonest');
    return planned(tuned, tuned.build === chosen.build ? compiled : host.compile(tuned.build, false), measured);
  }

  /**
   * Loads a model. Errors: kHttpStatus, kDownloadFailed, kNotAModel, kModelTruncated, kModelCorrupt, kHashMismatch, kArchitectureUnknown
   * and others of the core; an AbortError when `signal` fires.
   */
  async load(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
    if (this.#isDisposed) throw failure('kSessionClosed', { what: 'engine' });
    options.signal?.throwIfAborted();
    const from = await this.#describe(source);
    const spare = this.#spare;
    this.#spare = null;
    const parts = this.#parts;
    const { host, module, threads, options: engineOptions } = parts;
    const { client } = spare && !spare.client.isBroken ? spare : await Client.start(host, { compiled: module, threads, options: engineOptions });
    try {
      const { planes = 'progressive', memoryLimit = 0 } = options;
      if (!(memoryLimit >= 0)) throw failure('kOptionInvalid', { option: 'memoryLimit', value: String(memoryLimit), expected: 'a number of bytes' });
      const core = coreOptions(options, modelOptionNames, ['onProgress', 'signal', 'cache', 'planes', 'memoryLimit'], {
        planes: planes === 'progressive' ? 'base' : planes,
        file: nameOf(from),
        container: isFolder(from) ? 'folder' : 'gguf',
      });
      const cache = options.cache ?? 'default';
      const { signal, onProgress } = options;
      const info = await client.ask<object>({ type: 'load', source: from, options: core, cache, memoryLimit }, { signal, onProgress });
      const model: Model = new Model(client, info, () => this.#models.delete(model));
      this.#models.add(model);
      if (planes === 'progressive' && model.info.hasRefinement) void model.refine({ onProgress, signal });
      return model;
    } catch (error) {
      await client.close();
      if (!(error instanceof SubbyteError) || !errorRows[error.code].ofDevice || !(await this.#fallBack(parts, error.message))) throw error;
      return this.load(source, options);
    }
  }

  /** Goes from the GPU to the CPU, if it may; whether there is another device to load on. */
  async #fallBack(from: Parts, why: string): Promise<boolean> {
    if (from.capabilities.device === 'cpu' || from.asked.fallback === false || this.#isDisposed) return false;
    if (from !== this.#parts) return true;
    const parts = await EngineBase.startOn(from.host, from.asked, why);
    this.#parts = parts;
    this.#spare = parts.spare;
    return true;
  }

  /**
   * Makes a folder of low-bit planes of a model, calibrated on `options.text`, and measures what it lost. Runs in a worker and a module of
   * its own, fetched for this. Nothing half-written stays, also when `signal` fires. Errors: kTargetExists, kTargetBusy, kWriteFailed,
   * kTextTooShort, kBudgetTooSmall, kOptionInvalid, kWeightsNotFinite and those of load().
   */
  async quantize(source: ModelSource, target: QuantizeTarget, options: QuantizeOptions): Promise<Quantized> {
    if (this.#isDisposed) throw failure('kSessionClosed', { what: 'engine' });
    const { signal, onProgress, text, allocation, evalWindows = 8, cache = 'default' } = options;
    signal?.throwIfAborted();
    if (typeof text !== 'string' || !text) {
      throw failure('kArgumentInvalid', { what: 'There is no text to calibrate on', fix: 'Pass {text}: a few hundred kilobytes of what the model will read.' });
    }
    const from = await this.#describe(source);
    const { host, threads, options: engineOptions, capabilities } = this.#parts;
    const core = coreOptions(options, quantizeOptionNames, ['text', 'allocation', 'evalWindows', 'onProgress', 'signal', 'cache'], allocation ? { allocation } : {});
    this.#quantizerModule ??= host.compile(capabilities.build, true);
    this.#quantizerModule.catch(() => (this.#quantizerModule = null)); // the next call tries again
    const module = await this.#quantizerModule;
    const into = await host.openTarget(target);
    let client: Client | undefined;
    try {
      const onCpu = JSON.stringify({ ...(JSON.parse(engineOptions) as object), device: 'cpu' });
      ({ client } = await Client.start(host, { compiled: module, threads, options: onCpu }));
      this.#quantizers.add(client);
      const job: QuantizeJob = {
        source: from,
        sourceName: baseName(nameOf(from)),
        sourceOptions: loadOptions(from),
        cache,
        target: into.source,
        targetOptions: loadOptions(into.source),
        text: new TextEncoder().encode(`${text}
`),
        options: core,
        evalWindows,
        evalOptions: JSON.stringify({ windows: evalWindows, ...(options.window ? { ctx: options.window } : {}) }),
      };
      const done = await client.ask<{ report: object; evaluation: object | null }, QuantizeProgress>({ type: 'quantize', job }, { signal, onProgress });
      await client.close();
      const folder = await into.finish();
      const evaluation = done.evaluation ? camelKeys<NonNullable<Quantized['evaluation']>>(done.evaluation) : null;
      return { folder, report: camelKeys<Quantized['report']>(done.report), evaluation };
    } catch (error) {
      await client?.close(); // first, so that it writes no more
      await into.undo();
      throw error;
    } finally {
      if (client) this.#quantizers.delete(client);
    }
  }

  async dispose(): Promise<void> {
    this.#isDisposed = true;
    const spare = this.#spare;
    this.#spare = null;
    await Promise.all([spare?.client.close(), ...[...this.#quantizers].map((client) => client.close()), ...[...this.#models].map((model) => model.dispose())]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #describe(source: ModelSource): Promise<Source> {
    if (typeof source === 'string' || source instanceof URL) return this.#parts.host.resolve(source);
    if (isHandle(source)) return { kind: 'handle', handle: source };
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

const isFolder = (source: Source) => source.kind === 'folder' || source.kind === 'handle' || ('isFolder' in source && source.isFolder);

const loadOptions = (source: Source) => JSON.stringify({ file: nameOf(source), container: isFolder(source) ? 'folder' : 'gguf' });

const baseName = (path: string) => path.replace(/\/$/, '').split('/').at(-1)!;

const isHandle = (source: object): source is FileSystemDirectoryHandle => 'kind' in source && source.kind === 'directory';

export function nameOf(source: Source): string {
  switch (source.kind) {
    case 'url':
      return source.url;
    case 'path':
      return source.path;
    case 'blobs':
      return source.name;
    case 'folder':
      return 'the chosen folder';
    case 'handle':
      return source.handle.name;
  }
}
