// Brings a load the bytes that it asks for. The core says which file, where and how many; here is where they come from.
import { UrlFile } from './download.ts';
import { abortError, failure, reasonOf, SubbyteError } from './errors.ts';
import { BlobFile, openHandle, type ModelFile } from './local.ts';
import type { CacheMode } from './messages.ts';
import { INDEX_FILE, LocalShard, OverheardFile, shardsOf, ShardFile, type Shard } from './shards.ts';
import type { Progress, Source } from './types.ts';
import type { Core } from './wasm.ts';

/** Opens a file of the source by its name in the folder; '' is the source itself. Lives as long as its model, loads come and go. */
export type Opener = (name: string, abort: AbortSignal) => ModelFile;

export function webOpener(source: Source, cache: CacheMode): Opener {
  switch (source.kind) {
    case 'url':
      return source.isFolder ? folderOpener(source.url, cache) : (_, abort) => new UrlFile(source.url, cache, false, abort);
    case 'blobs':
      return () => new BlobFile(source.blobs.length === 1 ? source.blobs[0]! : new Blob(source.blobs));
    case 'folder':
      return localFolderOpener((name) => {
        const file = source.files.find((candidate) => candidate.name === name);
        return file ? new BlobFile(file.blob) : missingFile;
      });
    case 'handle':
      return localFolderOpener((name) => new HandleFile(source.handle, name));
    case 'path':
      throw failure('kArgumentInvalid', { what: `A page cannot read the path ${source.path}`, fix: 'Give a URL or a File.' });
  }
}

function folderOpener(url: string, cache: CacheMode): Opener {
  const addressOf = (name: string) => new URL(name, url).href;
  // The core decides which files must be there.
  const open: Opener = (name, abort) => new UrlFile(addressOf(name), cache, true, abort);
  return shardOpener(open, (name, shard, abort) => new ShardFile(addressOf(name), shard, cache, abort));
}

/** A folder whose files are here, opened by `open`. */
export const localFolderOpener = (open: Opener): Opener => shardOpener(open, (name, shard, abort) => new LocalShard(open(name, abort), shard));

/** Hears from the index of a quantised folder, once the core has read it, which files are shards and what is in them. */
function shardOpener(open: Opener, openShard: (name: string, shard: Shard, abort: AbortSignal) => ModelFile): Opener {
  let shards = new Map<string, Shard>();
  return (name, abort) => {
    const shard = shards.get(name);
    if (shard) return openShard(name, shard, abort);
    const file = open(name, abort);
    return name === INDEX_FILE ? new OverheardFile(file, (text) => (shards = shardsOf(text))) : file;
  };
}

/** A file in a folder of the site's storage, or in one that the user chose. */
class HandleFile implements ModelFile {
  readonly isLocal = true;
  readonly #folder: FileSystemDirectoryHandle;
  readonly #name: string;
  #file: ModelFile | null | undefined;

  constructor(folder: FileSystemDirectoryHandle, name: string) {
    this.#folder = folder;
    this.#name = name;
  }
  async size(): Promise<number | null> {
    return (await this.#open())?.size() ?? null;
  }
  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    return (await this.#open())?.read(offset, into, onBytes) ?? 0;
  }
  async close(isGood: boolean): Promise<void> {
    await this.#file?.close(isGood);
  }

  async #open(): Promise<ModelFile | null> {
    if (this.#file !== undefined) return this.#file;
    try {
      return (this.#file = await openHandle(await this.#folder.getFileHandle(this.#name)));
    } catch (error) {
      if (error instanceof DOMException && error.name === 'NotFoundError') return (this.#file = null);
      throw failure('kReadFailed', { file: `${this.#folder.name}/${this.#name}`, why: reasonOf(error) }, error);
    }
  }
}

export const missingFile: ModelFile = {
  isLocal: true,
  size: async () => null,
  read: async () => 0,
  close: async () => {},
};

const DONE = 0;
const WANTS_SIZE = 1;
const WAITS = 3; // for the GPU
const REQUEST_BYTES = 32;
const PROGRESS_MS = 40;  // a page repaints no more often than this is worth

interface CoreProgress {
  phase: Progress['phase'];
  done_bytes: number;
  total_bytes: number;
}

export interface LoadJob {
  /** A new load of the core. More than once where stored bytes turn out to be damaged: these are let go and fetched again. */
  begin: () => number;
  open: Opener;
  abort: AbortSignal;
  tell: (progress: Progress) => void;
  isRefinement?: boolean;
  /** The load runs beside a session and its model, whose calls may grow the memory. */
  isBeside?: boolean;
}

/** Runs a load to its end; `finish` gets its handle and uses it up. */
export async function bring<T>(core: Core, job: LoadJob, finish: (load: number) => T): Promise<T> {
  for (;;) {
    try {
      return await bringOnce(core, job, finish);
    } catch (error) {
      if (!(error instanceof DamagedStorage)) throw error;
    }
  }
}

class DamagedStorage extends Error {}

async function bringOnce<T>(core: Core, { begin, open, abort, tell, isRefinement, isBeside }: LoadJob, finish: (load: number) => T): Promise<T> {
  const files = new Map<string, ModelFile>();
  let load = begin();
  const request = core.alloc(REQUEST_BYTES);
  let isGood = false;
  let reading: ModelFile | undefined;
  let last = { at: -Infinity, phase: '' };
  let progress: Progress = { phase: 'index', loadedBytes: 0, totalBytes: 0, file: '', isLocal: false };
  const report = (next: Partial<Progress>) => {
    progress = { ...progress, ...next };
    const now = performance.now();
    if (now - last.at < PROGRESS_MS && progress.phase === last.phase && progress.loadedBytes < progress.totalBytes) return;
    last = { at: now, phase: progress.phase };
    tell(progress);
  };

  try {
    for (;;) {
      if (abort.aborted) throw abortError(abort.reason);
      const { wants, request: wanted } = core.loadNext(load, request);
      if (wants === DONE) break;
      if (wants === WAITS) {
        await core.gpu.written();
        continue;
      }
      let file = files.get(wanted.file);
      if (!file) files.set(wanted.file, (file = open(wanted.file, abort)));
      if (wants === WANTS_SIZE) {
        core.check('sb_load_size', load, BigInt((await file.size()) ?? -1));
      } else {
        reading = file;
        const before = core.json<CoreProgress>('sb_load_progress', load);
        const phase = isRefinement ? 'refinement' : before.phase;
        let come = 0;
        // The memory does not grow while the core waits, so bytes stay where they are, but for calls beside it.
        const into = isBeside ? new Uint8Array(wanted.nBytes) : core.bytes.subarray(wanted.at, wanted.at + wanted.nBytes);
        const n = await file.read(wanted.offset, into, (more) => {
          come += more;
          const loadedBytes = Math.min(before.done_bytes + come, before.total_bytes || Infinity);
          report({ phase, loadedBytes, totalBytes: before.total_bytes, file: wanted.file, isLocal: file.isLocal });
        });
        if (isBeside) core.bytes.set(into.subarray(0, n), wanted.at);
        for (const component of file.takeSummed?.() ?? []) core.check('sb_load_summed', load, component);
        core.check('sb_load_bytes', load, BigInt(n));
      }
    }
    await core.gpu.prepared();
    const complete = load;
    load = 0; // used up, also when this fails
    const value = finish(complete);
    isGood = true;
    report({ phase: 'ready', loadedBytes: progress.totalBytes });
    return value;
  } catch (error) {
    if (load && !(error instanceof WebAssembly.RuntimeError)) core.call('sb_load_free', load);
    if (error instanceof SubbyteError && error.code === 'kHashMismatch' && (await reading?.distrust?.(String(error.fields['component'])))) {
      throw new DamagedStorage(error.message);
    }
    throw error;
  } finally {
    core.free(request);
    for (const file of files.values()) await file.close(isGood);
  }
}
