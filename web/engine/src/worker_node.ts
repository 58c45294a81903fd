// The worker's entry in Node: the same, with files from the disk.
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';

import type { ModelFile } from './download.ts';
import { failure, reasonOf } from './errors.ts';
import { webOpener } from './load.ts';
import type { FromWorker, ToWorker } from './messages.ts';
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

serve(
  {
    post: (message: FromWorker, transfer = []) => parentPort!.postMessage(message, transfer as never[]),
    onMessage: (listener) => parentPort!.on('message', (message: ToWorker) => listener(message)),
  },
  (source, cache, abort) => {
    if (source.kind !== 'path') return webOpener(source, cache, abort);
    return (name) => new PathFile(source.isFolder ? join(source.path, name) : source.path, source.isFolder);
  },
  // Not a MessageChannel: Node hands out up to a thousand messages of one port before another has its turn, so a step that posts the next
  // one to itself would be deaf to a cancel for as many steps.
  (work) => () => void setImmediate(work),
);
