// One file from a URL, read mostly from front to back: one stream feeds the reads as they come and the cache on the side, so that the
// file is never whole in JavaScript. A cut connection is taken up where it broke, when the server can.
import { CacheWriter, forget, isKnownAbsent, keepAbsence, keptFile } from './cache.ts';
import { abortError, failure, isAbort, reasonOf } from './errors.ts';
import { BlobFile, type ModelFile } from './local.ts';
import type { CacheMode } from './messages.ts';

const RETRIES = 4;
const PROGRESS_BYTES = 1 << 16;  // that many since the last cut start the count anew; fewer are no sign of life
const RETRIES_OPEN = 2;
const FIRST_DELAY_MS = 200;
const SKIP_BYTES = 1 << 20;  // reading past this much is cheaper than a new request

export class UrlFile implements ModelFile {
  isLocal = false;
  readonly #url: string;
  readonly #cache: CacheMode;
  readonly #isOptional: boolean;
  readonly #isChecked: boolean;
  readonly #abort: AbortSignal;
  #whole: ModelFile | null = null;  // when the bytes are already here
  #size: number | null | undefined;  // undefined: not asked yet; null: no such file
  #isLengthKnown = false;
  #hasRanges = false;
  #etag: string | null = null;
  #reader: ReadableStreamDefaultReader<Uint8Array> | null = null;
  #position = 0;  // of the next byte out of the stream
  #left: Uint8Array = new Uint8Array(0);  // came with the last piece and was not asked for yet
  #early: Uint8Array | null = null;  // came while the front of a restarted stream was skipped
  #writer: CacheWriter | null = null;
  #nWritten = 0;
  #nCuts = 0;
  #cutAt = 0;

  /** `isOptional`: an answer 404 means that there is no such file, not a failure. `knownSize`: bytes, when they need not be asked; such a
   * file is a shard, whose bytes are checked and kept by who reads it. */
  constructor(url: string, cache: CacheMode, isOptional: boolean, abort: AbortSignal, knownSize?: number) {
    this.#url = url;
    this.#cache = cache;
    this.#isOptional = isOptional;
    this.#abort = abort;
    this.#isChecked = knownSize !== undefined;
    if (knownSize === undefined) return;
    this.#size = knownSize;
    this.#isLengthKnown = this.#hasRanges = true; // until the first answer says otherwise
  }

  async size(): Promise<number | null> {
    if (this.#size !== undefined) return this.#size;
    const kept = this.#cache === 'default' ? await keptFile(this.#url) : null;
    if (kept) {
      await this.#useWhole(kept, true);
      return this.#size!;
    }
    if (this.#cache === 'default' && this.#isOptional && (await isKnownAbsent(this.#url))) return (this.#size = null);
    if (this.#cache === 'reload') await forget(this.#url);
    if (!(await this.#open(0))) return (this.#size = null);
    if (this.#cache !== 'off') this.#writer = await CacheWriter.open(this.#url);
    if (!this.#isLengthKnown) await this.#readToEnd();
    return this.#size!;
  }

  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    if ((await this.size()) === null) return 0;
    if (this.#whole) return this.#whole.read(offset, into, onBytes);
    const end = Math.min(offset + into.length, this.#size!);
    let done = 0;
    if (offset < this.#position && this.#writer) {
      // Already behind us, but on the disk.
      done = Math.min(this.#position, end) - offset;
      this.#writer.read(into.subarray(0, done), offset);
      onBytes(done);
    } else if (offset < this.#position || (!this.#writer && offset > this.#position + SKIP_BYTES && this.#hasRanges)) {
      await this.#seek(offset);
    }
    while (this.#position < offset) await this.#take(offset - this.#position);
    while (offset + done < end) {
      const piece = await this.#take(end - offset - done);
      into.set(piece, done);
      done += piece.length;
      onBytes(piece.length);
    }
    return done;
  }

  async close(isGood: boolean): Promise<void> {
    if (isGood && this.#size === null && this.#cache !== 'off') await keepAbsence(this.#url);
    try {
      if (isGood && this.#writer && !this.#whole) {
        while (this.#position < this.#size!) await this.#take(Infinity);
        await this.#writer.keep();
        this.#writer = null;
      }
    } catch {
      // The model is loaded; only the copy for next time is not.
    }
    const writer = this.#writer;
    this.#writer = null;
    await writer?.drop();
    await this.#whole?.close(isGood);
    await this.#hangUp();
  }

  async #useWhole(file: ModelFile, isLocal: boolean): Promise<void> {
    this.#whole = file;
    this.#size = await file.size();
    this.isLocal = isLocal;
  }

  // The next bytes of the stream, at most `n`; written to the cache on the way.
  async #take(n: number): Promise<Uint8Array> {
    while (this.#left.length === 0) {
      const piece = await this.#next();
      if (this.#writer) {
        if (this.#writer.write(piece, this.#nWritten)) {
          this.#nWritten += piece.length;
        } else {
          // Storage is full. What is behind us can still be had by a new request.
          await this.#writer.drop();
          this.#writer = null;
        }
      }
      this.#left = piece;
    }
    const piece = this.#left.length > n ? this.#left.subarray(0, n) : this.#left;
    this.#left = this.#left.subarray(piece.length);
    this.#position += piece.length;
    return piece;
  }

  // A piece from the network, taking up a cut connection.
  async #next(): Promise<Uint8Array> {
    for (;;) {
      let why: unknown;
      try {
        if (!this.#reader && !(await this.#open(this.#position))) throw failure('kHttpStatus', { url: this.#url, status: 404 });
        const early = this.#early;
        this.#early = null;
        if (early) return early;
        const { value, done } = await this.#reader!.read();
        if (value?.length) return value;
        if (!done) continue;
        why = new Error(`the connection ended at byte ${this.#position} of ${this.#size}`);
      } catch (error) {
        if (this.#abort.aborted || isAbort(error)) throw abortError(this.#abort.reason);
        if (error instanceof Error && error.name === 'SubbyteError') throw error;
        why = error;
      }
      await this.#hangUp();
      const canResume = this.#hasRanges || this.#position === 0;
      if (this.#position - this.#cutAt >= PROGRESS_BYTES) this.#nCuts = 0;
      this.#cutAt = this.#position;
      if (this.#nCuts++ >= RETRIES || !canResume) {
        const note = canResume ? '' : ', and the server cannot resume a download';
        throw failure('kDownloadFailed', { url: this.#url, why: reasonOf(why) + note }, why);
      }
      await delay(FIRST_DELAY_MS * 2 ** (this.#nCuts - 1), this.#abort);
    }
  }

  async #seek(offset: number): Promise<void> {
    await this.#hangUp();
    this.#left = new Uint8Array(0);
    this.#position = this.#hasRanges ? offset : 0;
  }

  // No length in the answer: the end is where the bytes end. They go to storage, else to memory, and are then a file like any other.
  async #readToEnd(): Promise<void> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    try {
      for (;;) {
        const { value, done } = await this.#reader!.read();
        if (done) break;
        if (this.#writer && !this.#writer.write(value, this.#nWritten)) {
          // Storage is full: what went there comes back into memory.
          const back = new Uint8Array(this.#nWritten);
          this.#writer.read(back, 0);
          pieces.push(back);
          await this.#writer.drop();
          this.#writer = null;
        }
        if (!this.#writer) pieces.push(value as Uint8Array<ArrayBuffer>);
        this.#nWritten += value.length;
      }
    } catch (error) {
      if (this.#abort.aborted) throw abortError(this.#abort.reason);
      throw failure('kDownloadFailed', { url: this.#url, why: reasonOf(error) }, error);
    }
    this.#reader = null;
    if (!this.#writer) return this.#useWhole(new BlobFile(new Blob(pieces)), false);
    const isKept = await this.#writer.keep();
    this.#writer = null;
    const kept = isKept ? await keptFile(this.#url) : null;
    if (kept) return this.#useWhole(kept, false);
    this.#nWritten = 0;
    await this.#open(0);
    return this.#readToEnd();
  }

  /** Starts the stream at `offset`. False for a file that need not be there and is not. */
  async #open(offset: number): Promise<boolean> {
    // Asking for a range even of everything tells at once whether the server has ranges, and keeps the bytes as they are (no gzip).
    let response: Response;
    for (let attempt = 0; ; attempt++) {
      // At last without: older browsers ask another origin for leave to send it, and some servers refuse.
      const headers: HeadersInit = attempt === RETRIES_OPEN && offset === 0 ? {} : { Range: `bytes=${offset}-` };
      try {
        // What goes into our storage need not be in the browser's cache a second time; and that one, which cannot check them, would hand
        // out damaged bytes again and again.
        const cache = this.#cache === 'off' && !this.#isChecked ? 'default' : 'no-store';
        response = await fetch(this.#url, { headers, signal: this.#abort, cache });
        if ((response.status !== 429 && response.status < 500) || attempt >= RETRIES_OPEN) break;
        await response.body?.cancel();
      } catch (error) {
        if (this.#abort.aborted) throw abortError(this.#abort.reason);
        if (attempt >= RETRIES_OPEN) throw failure('kDownloadFailed', { url: this.#url, why: reasonOf(error) }, error);
      }
      await delay(FIRST_DELAY_MS * 2 ** attempt, this.#abort);
    }
    if (!response.ok) {
      await response.body?.cancel();
      if (this.#isOptional && (response.status === 404 || response.status === 410)) return false;
      if (response.status === 416 && offset === 0) {
        await this.#useWhole(new BlobFile(new Blob()), false);  // an empty file has no byte 0
        return (this.#isLengthKnown = true);
      }
      throw failure('kHttpStatus', { url: this.#url, status: response.status });
    }
    const etag = response.headers.get('etag');
    if (offset > 0 && this.#etag && etag && etag !== this.#etag) {
      await response.body?.cancel();
      throw failure('kDownloadFailed', { url: this.#url, why: 'the file changed on the server during the download' });
    }
    this.#etag = etag;
    const isPart = response.status === 206;
    this.#hasRanges = isPart || response.headers.get('accept-ranges') === 'bytes';
    if (offset === 0 && !this.#isLengthKnown) this.#readLength(response, isPart);
    this.#reader = response.body!.getReader();
    if (!isPart) {
      // The server started at the front all the same.
      for (let skip = offset; skip > 0; ) {
        const { value, done } = await this.#reader.read();
        if (done) throw new Error(`the file ended before byte ${offset}`);
        if (value.length > skip) this.#early = value.subarray(skip);
        skip -= Math.min(skip, value.length);
      }
    }
    return true;
  }

  #readLength(response: Response, isPart: boolean): void {
    // Content-Range is hidden on other origins unless the server exposes it; of a range from byte 0 the length is the total.
    const total = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
    const isEncoded = !isPart && response.headers.has('content-encoding');
    const length = total ?? (isEncoded ? null : response.headers.get('content-length'));
    this.#isLengthKnown = length !== null && length !== undefined;
    this.#size = this.#isLengthKnown ? Number(length) : 0;
  }

  async #hangUp(): Promise<void> {
    const reader = this.#reader;
    this.#reader = null;
    this.#early = null;
    await reader?.cancel().catch(() => {});
  }
}

function delay(ms: number, abort: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(abortError(abort.reason));
    };
    const timer = setTimeout(() => {
      abort.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (abort.aborted) stop();
    else abort.addEventListener('abort', stop, { once: true });
  });
}
