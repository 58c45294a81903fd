// The worker's entry in Node: the same, with files from the disk.
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';

import { failure, reasonOf } from './errors.ts';
import { localFolderOpener, webOpener } from './load.ts';
import type { ModelFile } from './local.ts';
import type { FromWorker, ToWorker } from './messages.ts';
import type { FolderSink } from './quantize.ts';
import { serve } from './worker.ts';

class PathFile implements ModelFile {
  readonly isLocal = true;
  readonly #path: string;
  readonly #isOptional: boolean;
  #handle: FileHandle | null = null;

  constructor(path: string, isOptional: boolean) {
    this.#path = path;
    this.#isOptional = isOptional;
  }

  async size(): Promise<number | null> {
    try {
      this.#handle ??= await open(this.#path);
      return (await this.#handle.stat()).size;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw this.#failed(error);
      if (this.#isOptional) return null;
      throw failure('kFileMissing', { file: this.#path }, error);
    }
  }

  async read(offset: number, into: Uint8Array, onBytes: (n: number) => void): Promise<number> {
    try {
      this.#handle ??= await open(this.#path);
      let done = 0;
      while (done < into.length) {
        const { bytesRead } = await this.#handle.read(into, done, into.length - done, offset + done);
        if (bytesRead === 0) break;
        done += bytesRead;
        onBytes(bytesRead);
      }
      return done;
    } catch (error) {
      throw this.#failed(error);
    }
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = null;
  }

  #failed(error: unknown): Error {
    return failure('kReadFailed', { file: this.#path, why: reasonOf(error) }, error);
  }
}

class PathSink implements FolderSink {
  readonly #folder: string;
  readonly #files = new Map<string, FileHandle>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      let file = this.#files.get(name);
      if (!file) this.#files.set(name, (file = await open(join(this.#folder, name), constants.O_CREAT | constants.O_WRONLY)));
      for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
    } catch (error) {
      throw failure('kWriteFailed', { file: join(this.#folder, name), why: reasonOf(error) }, error);
    }
  }

  async settle(): Promise<void> {
    for (const [name, file] of this.#files) {
      try {
        await file.sync();
        await file.close();
      } catch (error) {
        throw failure('kWriteFailed', { file: join(this.#folder, name), why: reasonOf(error) }, error);
      }
    }
    this.#files.clear();
  }
}

const DAWN = 'webgpu'; // npm's name; not of our dependencies, because most do without

/** Node has no WebGPU of its own. */
async function findGpu(): Promise<GPU> {
  if (globalThis.navigator?.gpu) return navigator.gpu;
  const dawn = (await import(DAWN).catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'ERR_MODULE_NOT_FOUND' ? new Error(`Node has no WebGPU of its own: npm install ${DAWN}`, { cause: error }) : error;
  })) as { create(flags: string[]): GPU };
  return dawn.create([]);
}

serve(
  {
    post: (message: FromWorker, transfer = []) => parentPort!.postMessage(message, transfer as never[]),
    onMessage: (listener) => parentPort!.on('message', (message: ToWorker) => listener(message)),
  },
  (source, cache) => {
    if (source.kind !== 'path') return webOpener(source, cache);
    if (!source.isFolder) return () => new PathFile(source.path, false);
    return localFolderOpener((name) => new PathFile(join(source.path, name), true));
  },
  (target) => {
    if (target.kind !== 'path') throw failure('kArgumentInvalid', { what: 'In Node a folder is written to a path', fix: 'Give one.' });
    return new PathSink(target.path);
  },
  // Not a MessageChannel: Node hands out up to a thousand messages of one port before another has its turn, so a step that posts the next
  // one to itself would be deaf to a cancel for as many steps.
  (work) => () => void setImmediate(work),
  findGpu,
);
