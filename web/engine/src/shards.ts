// Shards of a quantised folder on a server. Its index says where each component lies and what it sums to, so components are kept in storage
// one by one under their SHA-256: a download that was cut goes on with the first component that is missing, a new version of a model fetches
// what has changed, and bytes that the core found damaged can be let go alone.
import { CacheWriter, byHash, forget, hexOf, keptFile } from './cache.ts';
import { UrlFile } from './download.ts';
import { abortError, failure } from './errors.ts';
import type { ModelFile } from './local.ts';
import type { CacheMode } from './messages.ts';

export const INDEX_FILE = 'subbyte.index.json';

/** What is fetched, kept and checked as one: a component, or the head of a shard. */
interface Piece {
  name: string;
  isComponent: boolean;
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
      shards.set(file, { nBytes: bytes, pieces: [{ name: 'its head', isComponent: false, begin: 0, end: head_bytes, sha256: head_sha256 }] });
    }
    for (const { name, shard, bytes, sha256 } of index.components) shards.get(shard)!.pieces.push({ name, isComponent: true, begin: bytes[0], end: bytes[1], sha256 });
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

const SUMMED_BYTES = 16 << 20; // a larger piece is not taken whole into memory: the core sums it as it comes

/** Bytes that a piece was read into, for the next one, of whichever shard: a garbage collector would come when the model has long been there
 * twice. */
let spare = new Uint8Array(0);

function takeBytes(nBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = spare;
  spare = new Uint8Array(0);
  return nBytes <= bytes.length && bytes.length <= 2 * nBytes ? bytes : new Uint8Array(nBytes);
}

/** Reads pieces of a quantised folder from files that are here. The browser sums them, which it does ten times as fast as WebAssembly; what
 * it finds wrong, or cannot sum, is the core's to judge. */
class PieceReader {
  #summed: string[] = [];
  #piece: Piece | null = null;
  #bytes = new Uint8Array(0); // its bytes, until they are read to their end

  /** Fills `into` from byte `at` of the shard; the piece's bytes begin at `begin` of `file`, which `onWhole` hears is not needed any more. */
  async read(
    piece: Piece,
    file: ModelFile,
    begin: number,
    at: number,
    into: Uint8Array,
    onBytes: (n: number) => void,
    onWhole = async (): Promise<void> => {},
  ): Promise<number> {
    const nBytes = piece.end - piece.begin;
    const offset = at - piece.begin;
    if (this.#piece !== piece) {
      // On plain-http origins crypto.subtle is missing.
      if (!piece.isComponent || offset > 0 || nBytes > SUMMED_BYTES || !globalThis.crypto?.subtle) return file.read(begin + offset, into, onBytes);
      this.#release();
      this.#bytes = takeBytes(nBytes);
      const bytes = this.#bytes.subarray(0, nBytes);
      if ((await file.read(begin, bytes, () => {})) < nBytes) return file.read(begin, into, onBytes);
      const summing = crypto.subtle.digest('SHA-256', bytes);
      await onWhole(); // meanwhile
      const digest = new Uint8Array(await summing);
      if (hexOf(digest) === piece.sha256) this.#summed.push(piece.name);
      this.#piece = piece;
    }
    into.set(this.#bytes.subarray(offset, offset + into.length));
    if (offset + into.length >= nBytes) this.#release();
    onBytes(into.length);
    return into.length;
  }

  #release(): void {
    if (this.#bytes.length) spare = this.#bytes;
    this.#bytes = new Uint8Array(0);
    this.#piece = null;
  }

  close(): void {
    this.#release();
    spare = new Uint8Array(0);
  }

  /** The components found right since the last call. */
  takeSummed(): string[] {
    const summed = this.#summed;
    this.#summed = [];
    return summed;
  }
}

export class ShardFile implements ModelFile {
  isLocal = true; // of the bytes read last
  readonly #url: string;
  readonly #shard: Shard;
  readonly #cache: CacheMode;
  readonly #abort: AbortSignal;
  readonly #network: UrlFile;
  readonly #kept = new Map<Piece, Promise<ModelFile | null>>();
  readonly #reader = new PieceReader();
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
    return kept.every((file) => file) ? this.#shard.nBytes : this.#sizeOnServer();
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

  read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    return readPieces(this.#shard, offset, into, async (piece, at, part) => {
      const kept = await this.#keptOf(piece);
      this.isLocal = kept !== null;
      return kept ? this.#reader.read(piece, kept, 0, at, part, onBytes, () => kept.close(true)) : this.#fetch(piece, at, part, onBytes);
    });
  }

  takeSummed(): string[] {
    return this.#reader.takeSummed();
  }

  async close(): Promise<void> {
    this.#reader.close();
    await this.#stopWriting();
    await this.#network.close(false);
    for (const kept of this.#kept.values()) await (await kept)?.close(true);
  }

  async distrust(component: string): Promise<boolean> {
    const piece = this.#shard.pieces.find(({ name }) => name === component);
    if (!piece) return false;
    const kept = await this.#keptOf(piece);
    await kept?.close(false); // what is open stays
    this.#kept.delete(piece);
    await this.#stopWriting();
    await forget(byHash(piece.sha256));
    return kept !== null;
  }

  #keptOf(piece: Piece): Promise<ModelFile | null> {
    let kept = this.#kept.get(piece);
    if (!kept) this.#kept.set(piece, (kept = this.#cache === 'default' ? keptPiece(piece) : Promise.resolve(null)));
    return kept;
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

async function keptPiece({ begin, end, sha256 }: Piece): Promise<ModelFile | null> {
  const file = await keptFile(byHash(sha256));
  if (!file || (await file.size()) === end - begin) return file;
  await file.close(false);
  return null;
}

/** A shard that lies whole in a file here. */
export class LocalShard implements ModelFile {
  readonly isLocal = true;
  readonly #file: ModelFile;
  readonly #shard: Shard;
  readonly #reader = new PieceReader();

  constructor(file: ModelFile, shard: Shard) {
    this.#file = file;
    this.#shard = shard;
  }
  size(): Promise<number | null> {
    return this.#file.size();
  }
  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    const read = (piece: Piece, at: number, part: Uint8Array) => this.#reader.read(piece, this.#file, piece.begin, at, part, onBytes);
    return readPieces(this.#shard, offset, into, read);
  }
  takeSummed(): string[] {
    return this.#reader.takeSummed();
  }
  close(isGood: boolean): Promise<void> {
    this.#reader.close();
    return this.#file.close(isGood);
  }
}

/** Fills `into` piece by piece; fewer bytes where the shard or one of its pieces ends. */
async function readPieces(
  { pieces }: Shard,
  offset: number,
  into: Uint8Array,
  read: (piece: Piece, at: number, into: Uint8Array) => Promise<number>,
): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const at = offset + done;
    const piece = pieces.find(({ begin, end }) => begin <= at && at < end);
    if (!piece) break; // behind the end
    const part = into.subarray(done, Math.min(into.length, done + piece.end - at));
    const n = await read(piece, at, part);
    done += n;
    if (n < part.length) break;
  }
  return done;
}
