// A model's worker: it owns one instance of the core and runs what the page asks for. Between two steps of an answer it goes back to its
// message queue, so that a cancel, or a question about memory, is heard within one step.
import { failure, isAbort, reasonOf, SubbyteError, toPlain } from './errors.ts';
import { bring, type Opener } from './load.ts';
import type { CacheMode, Call, FromWorker, PoolThread, Port, ToWorker } from './messages.ts';
import type { Source } from './types.ts';
import { Core, FatalError, sharedMemory } from './wasm.ts';

export type MakeOpener = (source: Source, cache: CacheMode, abort: AbortSignal) => Opener;

const STEP_MORE = 1;

/** Calls `work` after the messages that wait already. Made once; it must not cost the 4 ms of nested timers. */
export type MakeLater = (work: () => void) => () => void;

export function serve(port: Port<ToWorker, FromWorker>, makeOpener: MakeOpener, makeLater: MakeLater): void {
  let core: Core;
  let engine = 0;
  let model = 0;
  let session = 0;
  let answering = 0; // the running answer's id
  let loading: AbortController | null = null;
  let loaded: Promise<void> = Promise.resolve();
  let isNextPosted = false;
  const postNext = makeLater(() => {
    isNextPosted = false;
    guarded(answering, step);
  });

  port.onMessage((message) => {
    if (message.type === 'pool') {
      message.port.onmessage = (event: MessageEvent<PoolThread>) => void becomePoolThread(event.data);
      return;
    }
    guarded('id' in message ? message.id : 0, () => handle(message));
  });

  /** Runs `work`; a failure goes to whoever asked, a trap ends the worker, because the core's state can no longer be trusted. */
  function guarded(id: number, work: () => void | Promise<void>): void {
    const fail = (error: unknown) => {
      if (id === answering) answering = 0;
      if (error instanceof FatalError || error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
        port.post({ type: 'fatal', why: reasonOf(error) });
      } else if (error instanceof SubbyteError || isAbort(error)) {
        port.post({ type: 'error', id, error: toPlain(error), isAbort: isAbort(error) });
      } else {
        port.post({ type: 'error', id, error: toPlain(failure('kInternal', { what: reasonOf(error) }, error)) });
      }
    };
    try {
      work()?.catch(fail);
    } catch (error) {
      fail(error);
    }
  }

  const answer = (id: number, value: unknown) => port.post({ type: 'value', id, value });

  function handle(message: Exclude<ToWorker, { type: 'pool' }>): void | Promise<void> {
    switch (message.type) {
      case 'init':
        return (async () => {
          const { module, pool } = message;
          const memory = pool.length ? sharedMemory() : undefined;
          core = await Core.create(module, memory);
          core.initialize();
          pool.forEach((port, i) => port.postMessage({ module, memory: memory!, block: core.threadBlock(), index: i + 1 } satisfies PoolThread));
          answer(message.id, null);
        })();
      case 'engine':
        engine = core.handle('sb_engine_create', message.options);
        return answer(message.id, {
          ...core.json<object>('sb_engine_capabilities', engine),
          version: core.json<object>('sb_version'),
        });
      case 'load':
        return (loaded = load(message));
      case 'start':
        core.check('sb_session_start', session, message.request);
        answering = message.id;
        return stepLater();
      case 'cancel':
        if (loading) return loading.abort();
        if (message.id !== answering) return; // it has just ended by itself
        core.call('sb_session_cancel', session);
        drain();
        answering = 0;
        return;
      case 'call':
        return answer(message.id, call(message.call));
      case 'close':
        return close();
    }
  }

  async function load(message: Extract<ToWorker, { type: 'load' }>): Promise<void> {
    loading = new AbortController();
    try {
      const { signal } = loading;
      const ticket = core.handle('sb_load_create', engine, message.options);
      model = await bring(core, ticket, makeOpener(message.source, message.cache, signal), signal, (progress) =>
        port.post({ type: 'progress', id: message.id, progress }),
      );
      session = core.handle('sb_session_create', model, '{}');
      answer(message.id, core.json('sb_model_info', model));
    } finally {
      loading = null;
    }
  }

  // One at a time: an answer that follows a cancelled one must not be pumped twice as fast.
  function stepLater(): void {
    if (isNextPosted) return;
    isNextPosted = true;
    postNext();
  }

  function step(): void {
    if (!answering) return;
    const status = core.call('sb_session_step', session);
    drain();
    if (status < 0) throw core.error();
    if (status === STEP_MORE) stepLater();
    else answering = 0;
  }

  function drain(): void {
    const events: string[] = [];
    for (let event; (event = core.textOrNull('sb_session_event', session)) !== null; ) events.push(event);
    if (events.length) port.post({ type: 'events', id: answering, events });
  }

  function call(request: Call): unknown {
    switch (request.name) {
      case 'encode': {
        const utf8 = new TextEncoder().encode(request.text);
        const text = core.putBytes(utf8);
        try {
          return core.json('sb_tokenizer_encode', tokenizer(), text, BigInt(utf8.length), request.options);
        } finally {
          core.free(text);
        }
      }
      case 'decode': {
        const ids = core.putBytes(new Uint8Array(request.ids.buffer, request.ids.byteOffset, request.ids.byteLength));
        try {
          const n = BigInt(request.ids.length);
          return core.decode(core.sized((length) => core.call('sb_tokenizer_decode', tokenizer(), ids, n, request.options, length)));
        } finally {
          core.free(ids);
        }
      }
      case 'chat':
        return core.text('sb_model_chat', model, request.request);
      case 'memory':
        return { ...core.json<object>('sb_memory'), wasm_bytes: core.memory.buffer.byteLength };
      case 'tensors':
        return core.json('sb_model_tensors', model);
      case 'session':
        return core.json('sb_session_info', session);
      case 'reset':
        return void core.check('sb_session_reset', session);
      case 'resetPeak':
        return void core.call('sb_memory_reset_peak');
      case 'golden': {
        const golden = core.putBytes(request.bytes);
        try {
          const report = core.json<object>('sb_golden_run', model, golden, BigInt(request.bytes.length));
          return { ...report, dump: core.sized((length) => core.call('sb_golden_dump', model, length)) };
        } finally {
          core.free(golden);
        }
      }
    }
  }

  function tokenizer(): number {
    return core.handle('sb_model_tokenizer', model);
  }

  async function close(): Promise<void> {
    loading?.abort();
    answering = 0;
    await loaded.catch(() => {}); // it told its own asker
    try {
      core.call('sb_session_free', session);
      core.call('sb_model_free', model);
      core.call('sb_engine_free', engine);
    } finally {
      session = model = engine = 0;
      port.post({ type: 'closed' });
    }
  }

  // From here on this worker is a thread of another's core: it does not come back to its messages.
  async function becomePoolThread({ module, memory, block, index }: PoolThread): Promise<void> {
    try {
      const thread = await Core.create(module, memory);
      thread.becomeThread(block);
      port.post({ type: 'poolReady' });
      thread.call('sb_worker_run', index);
    } catch (error) {
      port.post({ type: 'fatal', why: `thread ${index}: ${reasonOf(error)}` });
    }
  }
}
