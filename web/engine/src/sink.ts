// Writes a quantised folder into a folder of the site's storage, or into one that the user chose.
import { failure, reasonOf } from './errors.ts';
import type { OpfsFile } from './local.ts';
import type { FolderSink } from './quantize.ts';
import type { Source } from './types.ts';

interface OpenFile {
  write(bytes: Uint8Array, at: number): Promise<void>;
  close(): Promise<void>;
}

async function openFile(folder: FileSystemDirectoryHandle, name: string): Promise<OpenFile> {
  const file = (await folder.getFileHandle(name, { create: true })) as OpfsFile;
  try {
    const handle = await file.createSyncAccessHandle!();
    return {
      async write(bytes, at) {
        if (handle.write(bytes, { at }) !== bytes.length) throw new Error('the storage is full');
      },
      async close() {
        handle.flush();
        handle.close();
      },
    };
  } catch {
    // Only the site's own storage has those; a folder of the user's has streams, which are in the file once they are closed.
    const stream = await file.createWritable({ keepExistingData: true });
    return {
      write: (bytes, at) => stream.write({ type: 'write', position: at, data: bytes as Uint8Array<ArrayBuffer> }),
      close: () => stream.close(),
    };
  }
}

class HandleSink implements FolderSink {
  readonly #folder: FileSystemDirectoryHandle;
  readonly #files = new Map<string, OpenFile>();

  constructor(folder: FileSystemDirectoryHandle) {
    this.#folder = folder;
  }

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      let file = this.#files.get(name);
      if (!file) this.#files.set(name, (file = await openFile(this.#folder, name)));
      await file.write(bytes, offset);
    } catch (error) {
      throw failure('kWriteFailed', { file: `${this.#folder.name}/${name}`, why: reasonOf(error) }, error);
    }
  }

  async settle(): Promise<void> {
    for (const [name, file] of this.#files) {
      await file.close().catch((error: unknown) => {
        throw failure('kWriteFailed', { file: `${this.#folder.name}/${name}`, why: reasonOf(error) }, error);
      });
    }
    this.#files.clear();
  }
}

export function webSink(target: Source): FolderSink {
  if (target.kind !== 'handle') throw failure('kArgumentInvalid', { what: 'A page writes into a folder of its storage', fix: 'Give a name, or the handle of a folder.' });
  return new HandleSink(target.handle);
}
