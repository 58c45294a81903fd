// Shards of a quantised folder on a server. Its index says where each component lies and what it sums to, so components are kept in storage
// one by one under their SHA-256: a download that was cut goes on with the first component that is missing, a new version of a model fetches
// what has changed, and bytes that the core found damaged can be let go alone.
import { CacheWriter, byHash, cachedFile, forget } from './cache.ts';
import { BlobFile, UrlFile, type ModelFile } from './download.ts';
import { abortError, failure } from './errors.ts';
import type { CacheMode } from './messages.ts';

export const INDEX_FILE = 'subbyte.index.json';

/** What is fetched, kept and checked as one: a component, or the head of a shard. */
interface Piece {
  name: string;
  begin: number;
  end: number;
  sha256: string;
}

export interface Shard {
  nBytes: number;
  pieces: Piece[];
}

interface IndexText {
  shards: { file: string; bytes: number; head_bytes: number; head_sha256: string }[];
  components: { name: string; shard: string; bytes: [number, number]; sha256: string }[];
}

/** File name → shard. The core judges the index; of one that it will refuse, nothing is read here. */
export function shardsOf(text: string): Map<string, Shard> {
  const shards = new Map<string, Shard>();
  let index: IndexText;
  try {
    index = JSON.parse(text) as IndexText;
    for (const { file, bytes, head_bytes, head_sha256 } of index.shards) {
      shards.set(file, { nBytes: bytes, pieces: [{ name: 'its head', begin: 0, end: head_bytes, sha256: head_sha256 }] });
    }
    for (const { name, shard, bytes, sha256 } of index.components) shards.get(shard)!.pieces.push({ name, begin: bytes[0], end: bytes[1], sha256 });
  } catch {
    return new Map();
  }
  const isTiled = ({ nBytes, pieces }: Shard) =>
    pieces.every(({ begin, end, sha256 }, i) => begin === (pieces[i - 1]?.end ?? 0) && end > begin && /^[0-9a-f]{64}$/.test(sha256)) &&
    pieces.at(-1)!.end === nBytes;
  return [...shards.values()].every(isTiled) ? shards : new Map();
}

/** A file whose text someone else wants to hear, once the core has read it. */
export class OverheardFile implements ModelFile {
  readonly #file: ModelFile;
  readonly #onText: (text: string) => void;
  readonly #pieces: Uint8Array[] = [];

  constructor(file: ModelFile, onText: (text: string) => void) {
    this.#file = file;
    this.#onText = onText;
  }
  get isLocal(): boolean {
    return this.#file.isLocal;
  }
  size(): Promise<number | null> {
    return this.#file.size();
  }
  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    const n = await this.#file.read(offset, into, onBytes);
    this.#pieces.push(into.slice(0, n));
    if (offset + n === (await this.size())) this.#onText(await new Blob(this.#pieces as BlobPart[]).text());
    return n;
  }
  close(isGood: boolean): Promise<void> {
    return this.#file.close(isGood);
  }
}

export class ShardFile implements ModelFile {
  isLocal = true; // of the bytes read last
  readonly #url: string;
  readonly #shard: Shard;
  readonly #cache: CacheMode;
  readonly #abort: AbortSignal;
  readonly #network: UrlFile;
  readonly #kept = new Map<Piece, BlobFile | null>();
  #writing: { piece: Piece; at: number; writer: CacheWriter } | null = null;

  constructor(url: string, shard: Shard, cache: CacheMode, abort: AbortSignal) {
    this.#url = url;
    this.#shard = shard;
    this.#cache = cache;
    this.#abort = abort;
    this.#network = new UrlFile(url, cache, true, abort, shard.nBytes);
  }

  async size(): Promise<number | null> {
    const kept = await Promise.all(this.#shard.pieces.map((piece) => this.#keptOf(piece)));
    return kept.every((blob) => blob) ? this.#shard.nBytes : this.#sizeOnServer();
  }

  // A HEAD, since a GET would begin the download of every shard at once. Where a server will not say, the reads will.
  async #sizeOnServer(): Promise<number | null> {
    let response: Response;
    try {
      response = await fetch(this.#url, { method: 'HEAD', signal: this.#abort, cache: 'no-store' });
    } catch {
      if (this.#abort.aborted) throw abortError(this.#abort.reason);
      return this.#shard.nBytes;
    }
    const { status, headers } = response;
    if (status === 404 || status === 410) return null;
    if (status === 401 || status === 403) throw failure('kHttpStatus', { url: this.#url, status });
    const length = response.ok && !headers.has('content-encoding') ? headers.get('content-length') : null;
    return length === null ? this.#shard.nBytes : Number(length);
  }

  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const at = offset + done;
      const piece = this.#shard.pieces.find(({ begin, end }) => begin <= at && at < end);
      if (!piece) break; // behind the end
      const part = into.subarray(done, Math.min(into.length, done + piece.end - at));
      const kept = await this.#keptOf(piece);
      this.isLocal = kept !== null;
      const n = kept ? await kept.read(at - piece.begin, part, onBytes) : await this.#fetch(piece, at, part, onBytes);
      done += n;
      if (n < part.length) break;
    }
    return done;
  }

  async close(): Promise<void> {
    await this.#stopWriting();
    await this.#network.close(false);
  }

  async distrust(component: string): Promise<boolean> {
    const piece = this.#shard.pieces.find(({ name }) => name === component);
    if (!piece) return false;
    const wasKept = Boolean(await this.#keptOf(piece));
    await this.#stopWriting();
    await forget(byHash(piece.sha256));
    return wasKept;
  }

  async #keptOf(piece: Piece): Promise<BlobFile | null> {
    const known = this.#kept.get(piece);
    if (known !== undefined) return known;
    const file = this.#cache === 'default' ? await cachedFile(byHash(piece.sha256)) : null;
    const blob = file?.size === piece.end - piece.begin ? new BlobFile(file) : null;
    this.#kept.set(piece, blob);
    return blob;
  }

  async #fetch(piece: Piece, at: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    const n = await this.#network.read(at, into, onBytes);
    if (this.#cache === 'off') return n;
    if (at === piece.begin) {
      await this.#stopWriting();
      const writer = await CacheWriter.open(byHash(piece.sha256));
      if (writer) this.#writing = { piece, at, writer };
    }
    const writing = this.#writing;
    if (!writing || writing.piece !== piece || writing.at !== at) return n;
    // Through a copy: not every browser writes from shared memory.
    if (!writing.writer.write(into.slice(0, n), at - piece.begin)) {
      await this.#stopWriting(); // storage is full
    } else {
      writing.at += n;
      if (writing.at === piece.end) {
        this.#writing = null;
        await writing.writer.keep();
      }
    }
    return n;
  }

  async #stopWriting(): Promise<void> {
    const writing = this.#writing;
    this.#writing = null;
    await writing?.writer.drop();
  }
}
