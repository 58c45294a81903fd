// A model's worker: it owns one instance of the core and runs what the page asks for. Between two steps of an answer it goes back to its
// message queue, so that a cancel, or a question about memory, is heard within one step.
import { areKnownRight, keepRight } from './cache.ts';
import { abortError, failure, isAbort, reasonOf, SubbyteError, toPlain } from './errors.ts';
import { Gpu, type FindGpu } from './gpu.ts';
import { bring, type Opener } from './load.ts';
import type { CacheMode, Call, Dropped, FromWorker, PoolThread, Port, ToWorker } from './messages.ts';
import type { Progress, Source } from './types.ts';
import { quantize, type FolderSink } from './quantize.ts';
import { Core, FatalError, sharedMemory } from './wasm.ts';

export type MakeOpener = (source: Source, cache: CacheMode) => Opener;

const STEP_DONE = 0;
const STEP_MORE = 1;
const STEP_WAITS = 2; // the GPU has not answered yet
const STEP_WANTS_WEIGHTS = 3; // the GPU was lost, and the weights with it
const ALL_BYTES = 0xffff_ffff_ffff_ffffn;

const isLost = (error: unknown) => error instanceof SubbyteError && error.code === 'kDeviceLost';

/** Calls `work` after the messages that wait already. Made once; it must not cost the 4 ms of nested timers. */
export type MakeLater = (work: () => void) => () => void;

/** Where a quantised folder is written. */
export type MakeSink = (target: Source) => FolderSink;

export function serve(
  port: Port<ToWorker, FromWorker>,
  makeOpener: MakeOpener,
  makeSink: MakeSink,
  makeLater: MakeLater,
  findGpu: FindGpu,
): void {
  const gpu = new Gpu();
  let core: Core;
  let engine = 0;
  let model = 0;
  let session = 0;
  let answering = 0; // the running answer's id
  let open: Opener;
  let memoryLimit = 0; // bytes; 0: none
  let mayRelieve = true; // until there was nothing left to give back
  const running = new Map<number, AbortController>(); // loads, by their request
  let loads: Promise<unknown> = Promise.resolve();
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
          const memory = WebAssembly.Module.imports(module).some(({ kind }) => kind === 'memory') ? sharedMemory() : undefined;
          core = await Core.create(module, gpu, memory);
          core.initialize();
          pool.forEach((port, i) => port.postMessage({ module, memory: memory!, block: core.threadBlock(), index: i + 1 } satisfies PoolThread));
          answer(message.id, null);
        })();
      case 'engine':
        return createEngine(message);
      case 'load':
        return load(message);
      case 'refine':
        return refine(message.id);
      case 'quantize':
        return quantizeFor(message);
      case 'start':
        core.check('sb_session_start', session, message.request);
        answering = message.id;
        return stepLater();
      case 'cancel':
        if (running.has(message.id)) return running.get(message.id)!.abort();
        if (message.id !== answering) return; // it has just ended by itself
        core.call('sb_session_cancel', session);
        drain();
        answering = 0;
        return;
      case 'call': {
        const { id, call: request } = message;
        if (request.name === 'golden') return golden(id, request.bytes);
        if (request.name === 'profile') return profile(id);
        return answer(id, call(request));
      }
      case 'close':
        return close();
    }
  }

  async function createEngine({ id, options }: Extract<ToWorker, { type: 'engine' }>): Promise<void> {
    const { device = 'auto', fallback = true } = JSON.parse(options) as { device?: string; fallback?: boolean };
    if (device !== 'cpu') {
      await gpu.open(findGpu).catch((error: unknown) => {
        if (device === 'webgpu' && !fallback) throw error;
      });
    }
    engine = core.handle('sb_engine_create', options);
    answer(id, {
      ...core.json<object>('sb_engine_capabilities', engine),
      version: core.json<object>('sb_version'),
    });
  }

  /** Runs a load, or what else takes a while, that `id` may cancel. */
  function loadFor(id: number, work: (abort: AbortSignal) => Promise<void>): Promise<void> {
    const control = new AbortController();
    running.set(id, control);
    const done = work(control.signal).finally(() => running.delete(id));
    loads = Promise.allSettled([loads, done]);
    return done;
  }

  function load({ id, source, options, cache, memoryLimit: limit }: Extract<ToWorker, { type: 'load' }>): Promise<void> {
    open = makeOpener(source, cache);
    memoryLimit = limit;
    return loadFor(id, async (abort) => {
      const begin = () => core.handle('sb_load_create', engine, options);
      const tell = (progress: Progress) => port.post({ type: 'progress', id, progress });
      for (let isChecked = false; !isChecked; ) {
        try {
          model = await bring(core, { begin, open, abort, tell }, (done) => core.handle('sb_load_finish', done));
          await check(cache);
          isChecked = true;
        } catch (error) {
          core.call('sb_model_free', model);
          model = 0;
          if (!isLost(error) || !(await reopened())) throw error;
        }
      }
      session = core.handle('sb_session_create', model, '{}');
      answer(id, { ...core.json<object>('sb_model_info', model), self_check: core.json('sb_model_check_report', model) });
    });
  }

  /** Whether the GPU computes this model rightly, unless that is known. Errors: kDeviceWrong. */
  async function check(cache: CacheMode): Promise<void> {
    const key = core.text('sb_model_check_key', model);
    if (!key || (cache === 'default' && (await areKnownRight(key)))) return;
    for (let status; (status = core.check('sb_model_check_step', model)) !== STEP_DONE; ) if (status === STEP_WAITS) await gpu.answered();
    const { kernels, checked } = core.json<{ kernels: number; checked: number }>('sb_model_check_report', model);
    if (cache !== 'off' && checked === kernels) await keepRight(key);
  }

  /** Whether a lost GPU is there again. The core says how often that is worth trying. */
  async function reopened(): Promise<boolean> {
    for (let status; (status = core.call('sb_engine_reopen', engine)) !== STEP_DONE; ) {
      if (status < 0) return false;
      await gpu.answered();
    }
    return true;
  }

  // Behind the session: its steps run while this waits, and what has come is swapped in between two of them.
  function refine(id: number): Promise<void> {
    return loadFor(id, async (abort) => {
      const begin = () => {
        const refinement = core.handle('sb_model_refinement', model);
        const { total_bytes } = core.json<{ total_bytes: number }>('sb_load_progress', refinement);
        const { current } = core.json<{ current: number }>('sb_memory');
        if (!memoryLimit || current + total_bytes <= memoryLimit) return refinement;
        core.call('sb_load_free', refinement);
        throw failure('kMemoryExhausted', { n_bytes: total_bytes, tag: 'weights', current });
      };
      const tell = (progress: Progress) => port.post({ type: 'progress', id, progress });
      await bring(core, { begin, open, abort, tell, isRefinement: true, isBeside: true }, (done) => {
        if (abort.aborted) {
          core.call('sb_load_free', done);
          throw abortError(abort.reason);
        }
        core.check('sb_model_refine', model, done);
        mayRelieve = true;
      });
      answer(id, core.json('sb_model_info', model));
    });
  }

  function quantizeFor({ id, job }: Extract<ToWorker, { type: 'quantize' }>): Promise<void> {
    let awake = () => {};
    const later = makeLater(() => awake());
    return loadFor(id, async (abort) => {
      const sink = makeSink(job.target);
      try {
        const done = await quantize(
          {
            core,
            engine,
            source: makeOpener(job.source, job.cache),
            target: makeOpener(job.target, 'off'),
            sink,
            abort,
            breathe: () => new Promise<void>((resolve) => ((awake = resolve), later())),
            tell: (progress) => port.post({ type: 'progress', id, progress }),
          },
          job,
        );
        answer(id, done);
      } catch (error) {
        await sink.settle().catch(() => {}); // open files cannot be taken away; the first failure is the one that counts
        throw error;
      }
    });
  }

  function drop(bytes: bigint, why: Dropped['why']): Dropped {
    const { freed_bytes } = core.json<{ freed_bytes: number }>('sb_model_drop_refinement', model, bytes);
    return { freedBytes: freed_bytes, why, info: core.json('sb_model_info', model) };
  }

  /** Gives refinements back until at least `bytes` are free; whether there were any. */
  function relieve(bytes: bigint): boolean {
    const dropped = drop(bytes, 'memory');
    if (dropped.freedBytes) port.post({ type: 'dropped', dropped });
    return dropped.freedBytes > 0;
  }

  // One at a time: an answer that follows a cancelled one must not be pumped twice as fast.
  function stepLater(): void {
    if (isNextPosted) return;
    isNextPosted = true;
    postNext();
  }

  function step(): void | Promise<void> {
    if (!answering) return;
    const status = core.call('sb_session_step', session);
    drain();
    if (status < 0) {
      const error = core.error();
      // The answer has ended; the next one has room.
      if (error instanceof SubbyteError && error.code === 'kMemoryExhausted') relieve(ALL_BYTES);
      throw error;
    }
    if (memoryLimit && mayRelieve) {
      const over = core.json<{ current: number }>('sb_memory').current - memoryLimit;
      if (over > 0) mayRelieve = relieve(BigInt(over));
    }
    if (status === STEP_MORE) stepLater();
    else if (status === STEP_WAITS) stepWhenAnswered();
    else if (status === STEP_WANTS_WEIGHTS) return restore();
    else answering = 0;
  }

  // The messages of the meantime are heard; what they start waits for the same answer.
  function stepWhenAnswered(): void {
    isNextPosted = true;
    void gpu.answered().then(postNext);
  }

  /** Brings the weights again from where they came; the answer that waits for them goes on. */
  async function restore(): Promise<void> {
    const id = answering;
    isNextPosted = true; // what starts meanwhile waits, too
    const begin = () => core.handle('sb_model_reload', model);
    try {
      await loadFor(-id, async (abort) => {
        for (let isWhole = false; !isWhole; ) {
          const planes = planesNow();
          isWhole = await bring(core, { begin, open, abort, tell: () => {}, isBeside: true }, (done) => {
            if (abort.aborted || planes !== planesNow()) {
              core.call('sb_load_free', done); // a refinement has come in meanwhile: with it, once more
              return abort.aborted;
            }
            core.check('sb_model_restore', model, done);
            return true;
          });
        }
      });
    } catch (error) {
      // Lost once more on the way is for the core to count. Anything else ends the answer; what is left of a cancelled one waits anyway.
      if (!isLost(error) && !isAbort(error)) {
        isNextPosted = false;
        if (id !== answering) return answering ? stepLater() : undefined;
        core.call('sb_session_cancel', session);
        while (core.textOrNull('sb_session_event', session) !== null);
        throw error;
      }
    }
    isNextPosted = false;
    if (answering) stepLater();
  }

  const planesNow = () => core.json<{ planes: string }>('sb_model_info', model).planes;

  function drain(): void {
    const events: string[] = [];
    for (let event; (event = core.textOrNull('sb_session_event', session)) !== null; ) events.push(event);
    if (events.length) port.post({ type: 'events', id: answering, events });
  }

  function golden(id: number, bytes: Uint8Array): Promise<void> {
    return loadFor(id, async (abort) => {
      const at = core.putBytes(bytes);
      try {
        core.check('sb_golden_start', model, at, BigInt(bytes.length));
        for (let status; (status = core.check('sb_golden_step', model)) !== STEP_DONE; ) {
          if (status === STEP_WAITS) await gpu.answered();
          if (abort.aborted) throw abortError(abort.reason);
        }
        const report = core.json<object>('sb_golden_report', model);
        answer(id, { ...report, dump: core.sized((length) => core.call('sb_golden_dump', model, length)) });
      } finally {
        core.free(at);
      }
    });
  }

  function call(request: Exclude<Call, { name: 'golden' | 'profile' }>): unknown {
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
        return { ...core.json<object>('sb_memory'), wasm_bytes: core.memory.buffer.byteLength, gpu_bytes: gpu.nBytes };
      case 'tensors':
        return core.json('sb_model_tensors', model);
      case 'session':
        return core.json('sb_session_info', session);
      case 'reset':
        return void core.check('sb_session_reset', session);
      case 'resetPeak':
        return void core.call('sb_memory_reset_peak');
      case 'tuning':
        return core.json('sb_engine_tuning', engine);
      case 'dropRefinement':
        return drop(Number.isFinite(request.bytes) ? BigInt(Math.ceil(request.bytes)) : ALL_BYTES, 'asked');
    }
  }

  async function profile(id: number): Promise<void> {
    const profile = await gpu.profile();
    core.check('sb_session_reset', session);
    answer(id, profile);
  }

  function tokenizer(): number {
    return core.handle('sb_model_tokenizer', model);
  }

  async function close(): Promise<void> {
    for (const control of running.values()) control.abort();
    answering = 0;
    await loads; // each told its own asker
    try {
      core.call('sb_session_free', session);
      core.call('sb_model_free', model);
      core.call('sb_engine_free', engine);
    } finally {
      session = model = engine = 0;
      await gpu.destroy();
      port.post({ type: 'closed' });
    }
  }

  // From here on this worker is a thread of another's core: it does not come back to its messages.
  async function becomePoolThread({ module, memory, block, index }: PoolThread): Promise<void> {
    try {
      const thread = await Core.create(module, gpu, memory);
      thread.becomeThread(block);
      port.post({ type: 'poolReady' });
      thread.call('sb_worker_run', index);
    } catch (error) {
      port.post({ type: 'fatal', why: `thread ${index}: ${reasonOf(error)}` });
    }
  }
}
