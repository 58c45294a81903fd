// The page's side of one worker: requests out, answers in. When the worker breaks, everything that waits for it is told.
import { abortError, failure, fromPlain } from './errors.ts';
import type { Dropped, FromWorker, ToWorker, WorkerPort } from './messages.ts';
import type { Progress, QuantizeProgress } from './types.ts';

interface Waiting {
  resolve(value: never): void;
  reject(error: unknown): void;
  onProgress?: ((progress: never) => void) | undefined;
  onEvents?: ((events: string[]) => void) | undefined;
}

/** A message without the number that this file gives it. */
type Unnumbered<T> = T extends { id: number } ? Omit<T, 'id'> : never;

const CLOSE_MS = 2000;  // to give bytes and files back in order; a worker in the middle of a long step is ended

export interface Platform {
  spawn(): WorkerPort;
}

/** What a worker and its threads run, and how many of them. */
export interface Setup {
  compiled: WebAssembly.Module | Promise<WebAssembly.Module>;
  threads: number;
  /** JSON of the core: of sb_engine_create. */
  options: string;
}

export class Client {
  readonly #port: WorkerPort;
  readonly #pool: WorkerPort[] = [];
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #failed: Error | null = null;
  #onClosed: (() => void) | null = null;
  /** The worker gave a refinement back by itself. */
  onDropped: ((dropped: Dropped) => void) | null = null;

  private constructor(platform: Platform) {
    this.#port = this.#spawn(platform);
    this.#port.onMessage((message) => this.#receive(message));
  }

  #spawn(platform: Platform): WorkerPort {
    const port = platform.spawn();
    port.onFailure((why) => this.#fail(why));
    return port;
  }

  /** A worker with its threads and an engine; `capabilities` is what that engine says of itself. The worker starts while its setup is
   * made, its threads while the module is compiled. */
  static async start(platform: Platform, setup: Setup | Promise<Setup>): Promise<{ client: Client; capabilities: Record<string, unknown> }> {
    const client = new Client(platform);
    try {
      const { compiled, threads, options } = await setup;
      for (let i = 1; i < threads; i++) client.#pool.push(client.#spawn(platform));
      const module = await compiled;
      // The two ends of a channel go out together: with one end sent long before the other, Firefox was seen to hang.
      const channels = client.#pool.map(() => new MessageChannel());
      const pool = channels.map(({ port1 }) => port1);
      await Promise.all([
        client.ask({ type: 'init', module, pool }, { transfer: pool }),
        ...channels.map(({ port2 }, i) => client.#startThread(client.#pool[i]!, port2)),
      ]);
      return { client, capabilities: await client.ask({ type: 'engine', options }) };
    } catch (error) {
      client.#end();
      throw error;
    }
  }

  get isBroken(): boolean {
    return this.#failed !== null;
  }

  /** Sends a request. `signal` stops it: the worker is told, and the promise rejects at once. */
  ask<T, P extends Progress | QuantizeProgress = Progress>(
    message: Unnumbered<ToWorker>,
    more: { signal?: AbortSignal | undefined; onProgress?: ((progress: P) => void) | undefined; transfer?: Transferable[] } = {},
  ): Promise<T> {
    const { signal, onProgress, transfer } = more;
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) return reject(abortError(signal.reason));
      const id = this.#send(message, { resolve, reject, onProgress }, transfer);
      const stop = () => {
        this.#settle(id)?.reject(abortError(signal!.reason));
        this.cancel(id);
      };
      signal?.addEventListener('abort', stop, { once: true });
      const waiting = this.#waiting.get(id);
      if (!waiting || !signal) return;
      const clear = () => signal.removeEventListener('abort', stop);
      waiting.resolve = (value: never) => (clear(), resolve(value));
      waiting.reject = (error) => (clear(), reject(error));
    });
  }

  /** Starts an answer; events come until a 'done' one, or `onError` once. Returns its number for cancel(). */
  start(request: string, onEvents: (events: string[]) => void, onError: (error: unknown) => void): number {
    return this.#send({ type: 'start', request }, { resolve: () => {}, reject: onError, onEvents });
  }

  /** No more events of `id` are wanted. */
  forget(id: number): void {
    this.#settle(id);
  }

  cancel(id: number): void {
    if (!this.#failed) this.#port.post({ type: 'cancel', id });
  }

  /** Gives everything back. */
  async close(): Promise<void> {
    if (this.#failed) return;
    this.#failed = failure('kSessionClosed', { what: 'model' });
    this.#rejectAll(this.#failed);
    this.#port.setBusy?.(true);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, CLOSE_MS);
      this.#onClosed = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#port.post({ type: 'close' });
    });
    this.#end();
  }

  #send(message: Unnumbered<ToWorker>, waiting: Waiting, transfer?: Transferable[]): number {
    const id = this.#nextId++;
    if (this.#failed) {
      waiting.reject(this.#failed);
      return id;
    }
    this.#waiting.set(id, waiting);
    this.#port.setBusy?.(true);
    this.#port.post({ ...message, id } as ToWorker, transfer);
    return id;
  }

  #settle(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#port.setBusy?.(false);
    return waiting;
  }

  #receive(message: FromWorker): void {
    switch (message.type) {
      case 'value':
        return this.#settle(message.id)?.resolve(message.value as never);
      case 'error':
        return this.#settle(message.id)?.reject(message.isAbort ? abortError() : fromPlain(message.error));
      case 'progress':
        return this.#waiting.get(message.id)?.onProgress?.(message.progress as never);
      case 'events':
        return this.#waiting.get(message.id)?.onEvents?.(message.events);
      case 'dropped':
        return this.onDropped?.(message.dropped);
      case 'closed':
        return this.#onClosed?.();
      case 'fatal':
        return this.#fail(message.why);
      case 'poolReady':
        return;
    }
  }

  /** Resolves when the thread has come in. Where it fails the client does, and with it whatever is asked of it. */
  #startThread(port: WorkerPort, channel: MessagePort): Promise<void> {
    return new Promise((resolve) => {
      port.onMessage((message) => {
        if (message.type === 'poolReady') resolve();
        else if (message.type === 'fatal') this.#fail(message.why);
      });
      port.post({ type: 'pool', port: channel }, [channel]);
    });
  }

  #fail(why: string): void {
    if (this.#failed) return;
    this.#failed = failure('kWorkerFailed', { why });
    this.#end();
    this.#rejectAll(this.#failed);
  }

  #rejectAll(error: Error): void {
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of all) waiting.reject(error);
  }

  #end(): void {
    this.#failed ??= failure('kSessionClosed', { what: 'model' });
    this.#port.terminate();
    for (const port of this.#pool) port.terminate();
    this.#pool.length = 0;
    this.#onClosed?.();
  }
}
