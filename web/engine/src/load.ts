// Brings a load the bytes that it asks for. The core says which file, where and how many; here is where they come from.
import { BlobFile, UrlFile, type ModelFile } from './download.ts';
import { abortError, failure } from './errors.ts';
import type { CacheMode } from './messages.ts';
import type { Progress, Source } from './types.ts';
import type { Core } from './wasm.ts';

/** Opens a file of the source by its name in the folder; '' is the source itself. */
export type Opener = (name: string) => ModelFile;

export function webOpener(source: Source, cache: CacheMode, abort: AbortSignal): Opener {
  switch (source.kind) {
    case 'url':
      // In a folder the core decides which files must be there.
      return (name) => new UrlFile(source.isFolder ? new URL(name, source.url).href : source.url, cache, source.isFolder, abort);
    case 'blobs':
      return () => new BlobFile(source.blobs.length === 1 ? source.blobs[0]! : new Blob(source.blobs));
    case 'folder':
      return (name) => {
        const file = source.files.find((candidate) => candidate.name === name);
        return file ? new BlobFile(file.blob) : missingFile;
      };
    case 'path':
      throw failure('kArgumentInvalid', { what: `A page cannot read the path ${source.path}`, fix: 'Give a URL or a File.' });
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
const REQUEST_BYTES = 32;
const PROGRESS_MS = 40;  // a page repaints no more often than this is worth

interface CoreProgress {
  phase: Progress['phase'];
  done_bytes: number;
  total_bytes: number;
}

/** Runs the load to its end and returns the model's handle. */
export async function bring(core: Core, load: number, open: Opener, abort: AbortSignal, tell: (progress: Progress) => void): Promise<number> {
  const files = new Map<string, ModelFile>();
  const request = core.alloc(REQUEST_BYTES);
  let isGood = false;
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
      let file = files.get(wanted.file);
      if (!file) files.set(wanted.file, (file = open(wanted.file)));
      if (wants === WANTS_SIZE) {
        core.check('sb_load_size', load, BigInt((await file.size()) ?? -1));
      } else {
        const before = core.json<CoreProgress>('sb_load_progress', load);
        let come = 0;
        // The memory does not grow while the core waits, so these bytes stay where they are.
        const into = core.bytes.subarray(wanted.dst, wanted.dst + wanted.nBytes);
        const n = await file.read(wanted.offset, into, (more) => {
          come += more;
          const loadedBytes = Math.min(before.done_bytes + come, before.total_bytes || Infinity);
          report({ phase: before.phase, loadedBytes, totalBytes: before.total_bytes, file: wanted.file, isLocal: file.isLocal });
        });
        core.check('sb_load_bytes', load, BigInt(n));
      }
    }
    const model = core.handle('sb_load_finish', load);
    load = 0;
    isGood = true;
    report({ phase: 'ready', loadedBytes: progress.totalBytes });
    return model;
  } catch (error) {
    // sb_load_finish uses the load up also when it fails; until then it is ours.
    if (load && !(error instanceof WebAssembly.RuntimeError)) core.call('sb_load_free', load);
    throw error;
  } finally {
    core.free(request);
    for (const file of files.values()) await file.close(isGood);
  }
}
