// Downloads kept in the site's own storage (OPFS), by their address, or, where an index gives it, by the SHA-256 of what they are. A file is
// written as <key>.<random>.part and becomes <key> only when it is whole, so that no half file is ever taken for one. Where storage is
// missing, full or forbidden (private windows), everything works without it.

import { openHandle, type ModelFile, type OpfsFile, type SyncHandle } from './local.ts';

const FOLDER = 'subbyte';

type OpfsFolder = FileSystemDirectoryHandle & { keys(): AsyncIterable<string> };

let found: Promise<OpfsFolder | null> | undefined;

/** Where downloads are kept, looked for once a worker, which has one model; null where nothing can be kept. */
const folder = (): Promise<OpfsFolder | null> => (found ??= findFolder(true).catch(() => null));

/** The folder of all that is kept; made where it is wanted. Rejects where there is none, or no storage. */
export async function findFolder(isWanted: boolean): Promise<OpfsFolder> {
  const root = await navigator.storage.getDirectory();
  return (await root.getDirectoryHandle(FOLDER, { create: isWanted })) as OpfsFolder;
}

export const hexOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

const BY_HASH = 'sha256:';

/** The name here of bytes with this SHA-256, wherever they come from. */
export const byHash = (sha256: string): string => `${BY_HASH}${sha256}`;

async function keyOf(url: string): Promise<string> {
  if (url.startsWith(BY_HASH)) return url.slice(BY_HASH.length);
  // crypto.subtle is missing on plain-http origins; OPFS is, too, so this is only reached where both are.
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(url)));
  return hexOf(digest.subarray(0, 16));
}

/** The whole file kept for `url` (or byHash()), or null. */
export async function keptFile(url: string): Promise<ModelFile | null> {
  try {
    const handle = await (await folder())?.getFileHandle(await keyOf(url));
    return handle ? await openHandle(handle) : null;
  } catch {
    return null;
  }
}

// That a folder has no such file is worth keeping, too: else every visit asks for its optional files again.
const absent = (key: string) => `${key}-absent`;

export async function isKnownAbsent(url: string): Promise<boolean> {
  try {
    return (await (await folder())?.getFileHandle(absent(await keyOf(url)))) !== undefined;
  } catch {
    return false;
  }
}

export async function keepAbsence(url: string): Promise<void> {
  try {
    await (await folder())?.getFileHandle(absent(await keyOf(url)), { create: true });
  } catch {
    // Then the next visit asks again.
  }
}

// That a GPU's kernels have been found right; `key` is the core's, of adapter and kernels.
const rightKernels = (key: string) => `${key}-right`;

export async function areKnownRight(key: string): Promise<boolean> {
  try {
    return (await (await folder())?.getFileHandle(rightKernels(key))) !== undefined;
  } catch {
    return false;
  }
}

export async function keepRight(key: string): Promise<void> {
  try {
    await (await folder())?.getFileHandle(rightKernels(key), { create: true });
  } catch {
    // Then the next visit checks again.
  }
}

export async function forget(url: string): Promise<void> {
  const dir = await folder();
  if (!dir) return;
  const key = await keyOf(url);
  for (const name of [key, absent(key)]) await dir.removeEntry(name).catch(() => {});
}

/** A download on its way into storage. */
export class CacheWriter {
  readonly #dir: OpfsFolder;
  readonly #key: string;
  readonly #name: string;
  readonly #file: OpfsFile;
  readonly #handle: SyncHandle;

  private constructor(dir: OpfsFolder, key: string, name: string, file: OpfsFile, handle: SyncHandle) {
    this.#dir = dir;
    this.#key = key;
    this.#name = name;
    this.#file = file;
    this.#handle = handle;
  }

  static async open(url: string): Promise<CacheWriter | null> {
    let opened: { dir: OpfsFolder; name: string } | undefined;
    try {
      const dir = await folder();
      if (!dir) return null;
      const key = await keyOf(url);
      // What a killed tab left. One that another tab is still writing is locked, and stays.
      for await (const name of dir.keys()) {
        if (name.startsWith(`${key}.`)) await dir.removeEntry(name).catch(() => {});
      }
      const name = `${key}.${crypto.randomUUID().slice(0, 8)}.part`;
      const file = (await dir.getFileHandle(name, { create: true })) as OpfsFile;
      opened = { dir, name };
      // Without move() there is no way to give a whole file its name in one step.
      if (!file.createSyncAccessHandle || !file.move) throw new Error('no sync access handles here');
      return new CacheWriter(dir, key, name, file, await file.createSyncAccessHandle());
    } catch {
      await opened?.dir.removeEntry(opened.name).catch(() => {});
      return null;
    }
  }

  /** False when the storage is full: the caller goes on without it. */
  write(bytes: Uint8Array, at: number): boolean {
    try {
      return this.#handle.write(bytes, { at }) === bytes.length;
    } catch {
      return false;
    }
  }

  read(into: Uint8Array, at: number): void {
    // Through a buffer of its own: not every browser reads into shared memory.
    const bytes = new Uint8Array(into.length);
    this.#handle.read(bytes, { at });
    into.set(bytes);
  }

  /** Gives the file its name; false when that failed, and then nothing is kept. */
  async keep(): Promise<boolean> {
    try {
      this.#handle.flush();
      this.#handle.close();
      await this.#dir.removeEntry(this.#key).catch(() => {});
      await this.#file.move!(this.#key);
      return true;
    } catch {
      await this.drop();
      return false;
    }
  }

  async drop(): Promise<void> {
    try {
      this.#handle.close();
      await this.#dir.removeEntry(this.#name);
    } catch {
      // The next download of this URL clears it away.
    }
  }
}
