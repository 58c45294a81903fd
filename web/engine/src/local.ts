// Bytes that are here: files of the site's storage, of a folder, or the user's choice.
import { failure, reasonOf } from './errors.ts';

/** A file of a model, wherever it is. */
export interface ModelFile {
  /** Bytes; null when there is no such file. */
  size(): Promise<number | null>;
  /** Fills `into` from `offset`; fewer bytes only where the file ends. `onBytes` hears of each piece. */
  read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number>;
  /** No more reads; `isGood` when the model loaded. */
  close(isGood: boolean): Promise<void>;
  /** The core found `component` damaged: what is kept of it goes. True when it came from storage, so that a new try may bring it whole. */
  distrust?(component: string): Promise<boolean>;
  /** Components of a quantised folder whose SHA-256 was found right, since the last call: the core need not sum them. */
  takeSummed?(): string[];
  readonly isLocal: boolean;
}

// In workers only, and so not in TypeScript's DOM library.
export interface SyncHandle {
  write(bytes: Uint8Array, options: { at: number }): number;
  read(into: Uint8Array, options: { at: number }): number;
  getSize(): number;
  flush(): void;
  close(): void;
}
export type OpfsFile = FileSystemFileHandle & {
  createSyncAccessHandle?: (options?: { mode?: 'readwrite' | 'read-only' }) => Promise<SyncHandle>;
  move?: (name: string) => Promise<void>;
};

export class BlobFile implements ModelFile {
  readonly isLocal = true;
  readonly #blob: Blob;
  constructor(blob: Blob) {
    this.#blob = blob;
  }
  async size(): Promise<number> {
    return this.#blob.size;
  }
  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    let bytes: ArrayBuffer;
    try {
      bytes = await this.#blob.slice(offset, offset + into.length).arrayBuffer();
    } catch (error) {
      // The file was moved or changed after the user chose it.
      throw failure('kReadFailed', { file: this.#blob instanceof File ? this.#blob.name : 'the model', why: reasonOf(error) }, error);
    }
    into.set(new Uint8Array(bytes));
    onBytes(bytes.byteLength);
    return bytes.byteLength;
  }
  async close(): Promise<void> {}
}

const SCRATCH_BYTES = 1 << 20;

/** A file of the site's storage through a handle: a read asks no other process, and takes a thirtieth of a Blob's time in Chromium. */
class StoredFile implements ModelFile {
  readonly isLocal = true;
  readonly #handle: SyncHandle;
  readonly #name: string;
  constructor(handle: SyncHandle, name: string) {
    this.#handle = handle;
    this.#name = name;
  }
  async size(): Promise<number> {
    return this.#handle.getSize();
  }
  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    // Not every browser reads into shared memory.
    const scratch = into.buffer instanceof ArrayBuffer ? into : new Uint8Array(Math.min(into.length, SCRATCH_BYTES));
    let done = 0;
    while (done < into.length) {
      const part = scratch.subarray(0, into.length - done);
      let n: number;
      try {
        n = this.#handle.read(part, { at: offset + done });
      } catch (error) {
        throw failure('kReadFailed', { file: this.#name, why: reasonOf(error) }, error);
      }
      if (scratch !== into) into.set(part.subarray(0, n), done);
      done += n;
      if (n < part.length) break;
    }
    onBytes(done);
    return done;
  }
  async close(): Promise<void> {
    this.#handle.close();
  }
}

/** A file of the site's storage or of a folder that the user chose, as it is now. */
export async function openHandle(file: FileSystemFileHandle): Promise<ModelFile> {
  // Where a browser knows only handles that shut others out, the second reader gets a snapshot, which takes no lock.
  const handle = await (file as OpfsFile).createSyncAccessHandle?.({ mode: 'read-only' }).catch(() => null);
  return handle ? new StoredFile(handle, file.name) : new BlobFile(await file.getFile());
}
