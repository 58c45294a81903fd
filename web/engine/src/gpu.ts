// The GPU as the core sees it (core/device/webgpu/gpu.h), served over WebGPU: numbered objects, and lists of commands of which each becomes
// one submission. Nothing waits: a read that has not come yet is asked for again after answered().
import { failure, reasonOf } from './errors.ts';
import type { GpuProfile, StepTime } from './types.ts';

/** A page's navigator.gpu, or Node's. Throws what says why there is none. */
export type FindGpu = () => Promise<GPU>;

export type Imports = Record<string, (...args: number[]) => number | void>;

// Spelt out: Node has the objects, but not the globals that name them.
const MAP_READ = 0x1;
const COPY_SRC = 0x4;
const COPY_DST = 0x8;
const QUERY_RESOLVE = 0x200;
const USES = [0x80, 0x40]; // GpuUse: storage, uniform
const MAP_MODE_READ = 0x1;

const PROFILE_US = 50_000; // that a measurement may take, about
const PROFILE_TOKENS = 50; // turns at most, of all steps
const PROFILE_STEPS = 1000; // of one

const DISPATCH = 1;
const COPY = 2;
const READ = 3;

const OPENING = 0xffff_ffff; // kGpuOpening

const BINDING_WORDS = 3; // buffer, offset, bytes (0: to the buffer's end)

const FEATURES = ['shader-f16', 'subgroups', 'timestamp-query'] as const;
const LIMITS = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize'] as const;

/** A kind of step that is being timed: what each of it is bound to. */
interface Timed extends StepTime {
  pipeline: GPUComputePipeline;
  binds: GPUBindGroup[];
}

/** The fastest adapter. Rejects where there is none. */
export async function findAdapter(gpu: GPU): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error('there is no adapter: this machine has no GPU that WebGPU may use');
  return adapter;
}

/** Objects by number; 0 is none. */
class Numbered<T> {
  readonly #objects: (T | undefined)[] = [undefined];
  readonly #free: number[] = [];

  add(object: T): number {
    const id = this.#free.pop() ?? this.#objects.length;
    this.#objects[id] = object;
    return id;
  }
  get(id: number): T {
    const object = this.#objects[id];
    if (object === undefined) throw new Error(`nothing has number ${id}`);
    return object;
  }
  take(id: number): T {
    const object = this.get(id);
    this.#objects[id] = undefined;
    this.#free.push(id);
    return object;
  }
}

/** A slot of gpu_take. Its buffer stays for the next read of no more bytes. */
interface Read {
  state: 'free' | 'pending' | 'come' | 'failed';
  buffer: GPUBuffer;
  nBytes: number;
}

interface Opened {
  isLost: boolean;
  // Kept together: in Node a device goes when what it came from is collected.
  gpu: GPU;
  adapter: GPUAdapter;
  device: GPUDevice;
}

export class Gpu {
  #opened: Opened | null = null;
  #find: FindGpu | null = null; // once it has been opened
  #state: 'closed' | 'opening' | 'open' | 'failed' = 'closed';
  #nOpenings = 0;
  #info = '{"why": "it was not opened"}';
  #error = '';
  readonly #buffers = new Numbered<GPUBuffer>();
  #pipelines = new Numbered<GPUComputePipeline>();
  #prepared = new Map<string, GPUComputePipeline>(); // by text: compiled, and not asked for yet
  readonly #preparing = new Set<Promise<void>>();
  #last = new Uint32Array(); // the last list with dispatches
  readonly #binds = new Numbered<GPUBindGroup>();
  readonly #reads = new Map<number, Read>();
  #told: Promise<unknown> = Promise.resolve(); // all error scopes so far have been heard
  #nBytes = 0;
  #isClosed = false;
  // Of gpu_write: bytes since the core last asked, and those of before that the GPU has not taken.
  #nFresh = 0;
  #nWriting = 0;
  #onWritten: (() => void)[] = [];
  #hasAnswered = false;
  #onAnswer: (() => void)[] = [];

  /** Opens the fastest adapter with all that the kernels can use. Errors: kDeviceMissing. */
  async open(find: FindGpu): Promise<void> {
    try {
      this.#state = 'opening';
      const gpu = await find();
      const adapter = await findAdapter(gpu);
      const requiredFeatures = FEATURES.filter((name) => adapter.features.has(name));
      const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
      const device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
      if (this.#isClosed) return device.destroy();
      const opened: Opened = { gpu, adapter, device, isLost: false };
      device.addEventListener('uncapturederror', (event) => {
        event.preventDefault(); // the core tells it; the console need not
        if (opened !== this.#opened) return;
        const isMemory = event.error.constructor.name === 'GPUOutOfMemoryError';
        this.#keep(isMemory ? 'memory' : 'invalid', event.error.message);
      });
      void device.lost.then(({ reason, message }) => this.#lose(opened, [reason, message].filter(Boolean).join(', ')));
      this.#opened = opened;
      this.#find = find;
      this.#state = 'open';
      this.#nOpenings++;
      this.#info = JSON.stringify(describe(gpu, adapter, device, requiredFeatures));
    } catch (error) {
      this.#state = 'failed';
      const why = reasonOf(error);
      this.#info = JSON.stringify({ why });
      throw failure('kDeviceMissing', { device: 'webgpu', why }, error);
    }
  }

  /** gpu_open: the number of the opening; a lost device's successor is on its way meanwhile. */
  #reopen(): number {
    if (this.#state === 'open' && !this.#opened!.isLost) return this.#nOpenings;
    if (this.#state === 'opening') return OPENING;
    if (!this.#find || this.#isClosed) return 0;
    if (this.#state === 'failed') {
      this.#state = 'closed'; // told once: the next call tries again
      return 0;
    }
    this.#last = new Uint32Array();
    this.#pipelines = new Numbered(); // buffers and bind groups are freed by who has them
    this.#prepared = new Map();
    for (const read of this.#reads.values()) this.#free(read.buffer);
    this.#reads.clear();
    this.#error = '';
    this.open(this.#find).then(
      () => this.#answer(),
      () => this.#answer(), // #state says it
    );
    return OPENING;
  }

  /** Of all buffers. */
  get nBytes(): number {
    return this.#nBytes;
  }

  /** Resolves when a read has come or failed, or the device been opened anew, since the last time; at once when nothing is under way. */
  async answered(): Promise<void> {
    const isPending = this.#state === 'opening' || [...this.#reads.values()].some(({ state }) => state === 'pending');
    if (!this.#hasAnswered && isPending) await new Promise<void>((resolve) => this.#onAnswer.push(resolve));
    this.#hasAnswered = false;
  }

  /** Times the steps of the last run, each many times over between two timestamps, and all in their order, which spoils what they work on: the
   * session that ran must begin anew. Errors: kArgumentInvalid where the GPU tells no times. */
  async profile(): Promise<GpuProfile> {
    const device = this.#device;
    if (!device.features.has('timestamp-query'))
      throw failure('kArgumentInvalid', { what: 'This GPU or browser tells no times of kernels', fix: 'Profile where WebGPU has "timestamp-query".' });
    const known = new Map<string, Timed>();
    const order: { step: Timed; bind: GPUBindGroup }[] = [];
    for (let at = 0; at < this.#last.length; at += this.#last[at] === READ ? 5 : 6) {
      const [what, id, bindId, ...groups] = this.#last.subarray(at, at + 6) as unknown as [number, number, number, number, number, number];
      if (what !== DISPATCH) continue;
      const pipeline = this.#pipelines.get(id);
      const bind = this.#binds.get(bindId);
      const key = `${id} ${groups.join()}`; // products of one name may be of other widths
      const step = known.get(key) ?? { kernel: pipeline.label, groups, n: 0, us: 0, tokenUs: 0, pipeline, binds: [] };
      known.set(key, step);
      step.n = step.binds.push(bind);
      order.push({ step, bind });
    }
    const set = device.createQuerySet({ type: 'timestamp', count: 2 });
    const size = 16; // bytes
    const resolved = device.createBuffer({ size, usage: QUERY_RESOLVE | COPY_SRC });
    const come = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
    // Microseconds of a turn: browsers tell time in steps of 100, so it takes many; the first warms up, and says how many are not too long.
    const time = async (most: number, turn: (pass: GPUComputePassEncoder) => void) => {
      let us = 0;
      for (let nTurns = 1, i = 0; i < 2; ++i) {
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass({ timestampWrites: { querySet: set, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } });
        for (let t = 0; t < nTurns; ++t) turn(pass);
        pass.end();
        encoder.resolveQuerySet(set, 0, 2, resolved, 0);
        encoder.copyBufferToBuffer(resolved, 0, come, 0, size);
        device.queue.submit([encoder.finish()]);
        await come.mapAsync(MAP_MODE_READ);
        const [begin, end] = new BigUint64Array(come.getMappedRange()) as unknown as [bigint, bigint];
        come.unmap();
        us = Number(end - begin) / 1000 / nTurns;
        nTurns = Math.max(1, Math.min(most, Math.ceil(PROFILE_US / Math.max(us, 0.1))));
      }
      return us;
    };
    const token = (without?: Timed) =>
      time(PROFILE_TOKENS, (pass) => {
        for (const { step, bind } of order) {
          if (step === without) continue;
          pass.setPipeline(step.pipeline);
          pass.setBindGroup(0, bind);
          pass.dispatchWorkgroups(...step.groups);
        }
      });
    const tokenUs = await token();
    for (const step of known.values()) {
      step.tokenUs = Math.max(0, tokenUs - (await token(step))) / step.n;
      const turnUs = await time(PROFILE_STEPS, (pass) => {
        pass.setPipeline(step.pipeline);
        for (const bind of step.binds) {
          pass.setBindGroup(0, bind);
          pass.dispatchWorkgroups(...step.groups);
        }
      });
      step.us = turnUs / step.n;
    }
    for (const made of [set, resolved, come]) made.destroy();
    const steps = [...known.values()].map(({ kernel, groups, n, us, tokenUs }) => ({ kernel, groups, n, us, tokenUs }));
    return { steps: steps.sort((a, b) => b.n * b.tokenUs - a.n * a.tokenUs), tokenUs };
  }

  /** Resolves when the GPU has taken some of what is on its way to it; at once when nothing is. */
  async written(): Promise<void> {
    if (this.#nWriting) await new Promise<void>((resolve) => this.#onWritten.push(resolve));
  }

  /** Resolves when everything that gpu_prepare has begun is compiled. */
  async prepared(): Promise<void> {
    await Promise.all(this.#preparing);
  }

  /** Gives everything back; resolves when nothing is awaited any more: Node's WebGPU ends a process whose promises are left open. */
  async destroy(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    this.#state = 'closed';
    this.#isClosed = true;
    opened?.device.destroy();
    this.#answer();
    await Promise.all([this.#told, this.prepared()]);
  }

  /** What a module imports, by gpu.h's names; `bytes` is its memory as it is now. */
  imports(bytes: () => Uint8Array): Imports {
    const encoder = new TextEncoder();
    const decoder = new TextDecoder();
    const put = (text: string, to: number, n: number) => {
      const utf8 = encoder.encode(text);
      bytes().set(utf8.subarray(0, n), to >>> 0);
      return utf8.length;
    };
    // Copied where the memory is shared: Node's WebGPU crashes on it, decoders refuse it.
    const unshared = (from: number, n: number): Uint8Array<ArrayBuffer> => {
      const memory = bytes();
      const view = memory.subarray(from >>> 0, (from >>> 0) + n);
      return (view.buffer instanceof ArrayBuffer ? view : view.slice()) as Uint8Array<ArrayBuffer>;
    };
    const words = (from: number, n: number) => new Uint32Array(bytes().buffer, from >>> 0, n);

    return {
      gpu_open: () => this.#reopen(),
      gpu_info: (to, n) => put(this.#info, to!, n!),
      gpu_buffer: (n, use) => this.#buffer(n!, use!),
      gpu_buffer_free: (id) => void (id && this.#free(this.#buffers.take(id))),
      gpu_write: (id, offset, from, n) => {
        this.#device.queue.writeBuffer(this.#buffers.get(id!), offset!, unshared(from!, n!));
        this.#nFresh += n!;
      },
      gpu_writing: () => this.#writing(),
      gpu_prepare: (wgsl, n) => this.#prepare(decoder.decode(unshared(wgsl!, n!))),
      gpu_pipeline: (wgsl, n) => this.#pipeline(decoder.decode(unshared(wgsl!, n!))),
      gpu_bind: (pipeline, bindings, n) => this.#bind(pipeline!, words(bindings!, n! * BINDING_WORDS)),
      gpu_bind_free: (id) => void (id && this.#binds.take(id)),
      gpu_submit: (list, n) => this.#submit(words(list!, n!)),
      gpu_take: (slot, to, n) => this.#take(slot!, (from) => bytes().set(new Uint8Array(from, 0, n), to! >>> 0)),
      gpu_wait: () => {},
      gpu_error: (to, n) => {
        const length = put(this.#error, to!, n!);
        this.#error = '';
        return length;
      },
    };
  }

  get #device(): GPUDevice {
    if (!this.#opened) throw new Error('the GPU is not open');
    return this.#opened.device;
  }

  #keep(kind: 'lost' | 'memory' | 'invalid', what: string): void {
    this.#error ||= `${kind}: ${what}`;
  }

  #lose(opened: Opened, why: string): void {
    if (opened !== this.#opened) return;
    opened.isLost = true;
    this.#error = `lost: ${why}`; // what else is wrong is wrong because of this
    for (const read of this.#reads.values()) if (read.state !== 'free') read.state = 'failed';
    this.#answer();
  }

  #answer(): void {
    this.#hasAnswered = true;
    for (const wake of this.#onAnswer.splice(0)) wake();
  }

  // A write's bytes are copied, and the copy lives until the queue has come so far; an empty submission sends it on its way.
  #writing(): number {
    const n = this.#nFresh;
    if (n) {
      const { queue } = this.#device;
      queue.submit([]);
      this.#nFresh = 0;
      this.#nWriting += n;
      const told = this.#told; // whether there was memory for the buffers
      const taken = () => {
        this.#nWriting -= n;
        for (const wake of this.#onWritten.splice(0)) wake();
      };
      void Promise.all([told, queue.onSubmittedWorkDone()]).then(taken, taken); // of a lost device nothing is on its way
    }
    return this.#nWriting;
  }

  #buffer(nBytes: number, use: number): number {
    const device = this.#device;
    if (nBytes > device.limits.maxBufferSize) return 0;
    const size = Math.ceil(nBytes / 4) * 4;
    const usage = USES[use]! | COPY_SRC | COPY_DST;
    this.#nBytes += size;
    return this.#buffers.add(this.#scoped('out-of-memory', `${nBytes} bytes: `, () => device.createBuffer({ size, usage })));
  }

  #free(buffer: GPUBuffer): void {
    this.#nBytes -= buffer.size;
    buffer.destroy();
  }

  // Reads wait for what the scopes before them say; an uncaptured error may come later than the read that it spoils.
  #scoped<T>(filter: 'validation' | 'out-of-memory', what: string, work: () => T): T {
    const device = this.#device;
    device.pushErrorScope(filter);
    const result = work();
    const told = device.popErrorScope().then(
      (error) => error && device === this.#opened?.device && this.#keep(filter === 'validation' ? 'invalid' : 'memory', what + error.message),
      () => {}, // the device is lost, and says so itself
    );
    this.#told = Promise.all([this.#told, told]);
    return result;
  }

  #describePipeline(code: string): GPUComputePipelineDescriptor {
    const label = code.slice(0, code.indexOf('\n')).replace(/^\/\/ */, '');
    return { label, layout: 'auto', compute: { module: this.#device.createShaderModule({ code }), entryPoint: 'main' } };
  }

  #prepare(code: string): void {
    const prepared = this.#prepared; // of this opening
    const work = this.#scoped('validation', '', () => this.#device.createComputePipelineAsync(this.#describePipeline(code))).then(
      (pipeline) => void prepared.set(code, pipeline),
      () => {}, // #pipeline makes it then, and hears what is wrong
    );
    this.#preparing.add(work);
    void work.then(() => this.#preparing.delete(work));
  }

  #pipeline(code: string): number {
    const prepared = this.#prepared.get(code);
    this.#prepared.delete(code);
    return this.#pipelines.add(prepared ?? this.#scoped('validation', '', () => this.#device.createComputePipeline(this.#describePipeline(code))));
  }

  #bind(pipeline: number, words: Uint32Array): number {
    const entries: GPUBindGroupEntry[] = [];
    for (let at = 0; at < words.length; at += BINDING_WORDS) {
      const [buffer, offset, size] = words.subarray(at, at + BINDING_WORDS) as unknown as [number, number, number];
      entries.push({ binding: entries.length, resource: { buffer: this.#buffers.get(buffer), offset, ...(size ? { size } : {}) } });
    }
    const made = this.#scoped('validation', '', () =>
      this.#device.createBindGroup({ layout: this.#pipelines.get(pipeline).getBindGroupLayout(0), entries }),
    );
    return this.#binds.add(made);
  }

  #submit(words: Uint32Array): void {
    if (words[0] === DISPATCH) this.#last = words.slice();
    const reads = this.#scoped('validation', '', () => this.#encode(words));
    for (const read of reads) this.#map(read);
  }

  #encode(words: Uint32Array): Read[] {
    const encoder = this.#device.createCommandEncoder();
    let pass: GPUComputePassEncoder | null = null;
    let pipeline = 0; // the pass's
    const endPass = () => {
      pass?.end();
      pass = null;
      pipeline = 0;
    };
    const reads: Read[] = [];
    const pipelines = this.#pipelines;
    const binds = this.#binds;
    // By index: the hundreds of dispatches of a token are the page's costliest code.
    for (let at = 0; at < words.length; ) {
      const a = words[at + 1]!;
      const b = words[at + 2]!;
      switch (words[at]) {
        case DISPATCH:
          pass ??= encoder.beginComputePass();
          if (a !== pipeline) pass.setPipeline(pipelines.get((pipeline = a)));
          pass.setBindGroup(0, binds.get(b));
          pass.dispatchWorkgroups(words[at + 3]!, words[at + 4], words[at + 5]);
          at += 6;
          break;
        case COPY:
          endPass();
          encoder.copyBufferToBuffer(this.#buffers.get(a), b, this.#buffers.get(words[at + 3]!), words[at + 4]!, words[at + 5]!);
          at += 6;
          break;
        case READ: {
          endPass();
          const nBytes = words[at + 3]!;
          const read = this.#reserve(words[at + 4]!, nBytes);
          encoder.copyBufferToBuffer(this.#buffers.get(a), b, read.buffer, 0, nBytes);
          reads.push(read);
          at += 5;
          break;
        }
        default:
          throw new Error(`word ${at} of a command list is ${words[at]}`);
      }
    }
    endPass();
    this.#device.queue.submit([encoder.finish()]);
    return reads;
  }

  #reserve(slot: number, nBytes: number): Read {
    const last = this.#reads.get(slot);
    if (last && last.state !== 'free') throw new Error(`slot ${slot} is under way already`);
    let buffer = last?.buffer;
    if (!buffer || buffer.size < nBytes) {
      if (buffer) this.#free(buffer);
      buffer = this.#device.createBuffer({ size: nBytes, usage: MAP_READ | COPY_DST });
      this.#nBytes += nBytes;
    }
    const read: Read = { state: 'pending', buffer, nBytes };
    this.#reads.set(slot, read);
    return read;
  }

  #map(read: Read): void {
    const device = this.#device;
    const told = this.#told;
    const settle = async (state: Read['state']) => {
      await told;
      if (read.state === 'pending') read.state = state; // it has not been lost meanwhile
      this.#answer();
    };
    read.buffer.mapAsync(MAP_MODE_READ, 0, read.nBytes).then(
      () => settle('come'),
      (error: unknown) => {
        // Nobody gives a map up but a device that goes, and what is to be heard of that comes with `lost`.
        if ((error as Error).name === 'AbortError') return void device.lost.then(() => settle('failed'));
        if (device === this.#opened?.device) this.#keep('invalid', reasonOf(error));
        settle('failed');
      },
    );
  }

  #take(slot: number, copy: (from: ArrayBuffer) => void): number {
    const read = this.#reads.get(slot);
    if (!read || read.state === 'free') throw new Error(`nothing is read into slot ${slot}`);
    if (read.state === 'pending') return 0;
    const hasCome = read.state === 'come';
    read.state = 'free';
    if (!hasCome) return -1;
    let range: ArrayBuffer;
    try {
      range = read.buffer.getMappedRange(0, read.nBytes);
    } catch (error) {
      // A device that goes takes its maps along; what is to be heard of that comes with `lost`.
      if ((error as Error).name !== 'OperationError') throw error;
      read.state = 'pending';
      return 0;
    }
    copy(range);
    read.buffer.unmap();
    return 1;
  }
}

/** What gpu_info says. Browsers keep some of the names to themselves: these are empty. */
function describe(gpu: GPU, adapter: GPUAdapter, device: GPUDevice, features: readonly string[]): object {
  const { vendor, architecture, device: name, description } = adapter.info;
  // A newer property than TypeScript's DOM library; where it is missing, names tell.
  const { isFallbackAdapter = false } = adapter.info as { isFallbackAdapter?: boolean };
  const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize, maxComputeWorkgroupsPerDimension } = device.limits;
  return {
    adapter: name || description || [vendor, architecture].filter(Boolean).join(' '),
    vendor,
    architecture,
    driver: description,
    backend: 'webgpu',
    ...(isFallbackAdapter ? { software: true } : {}),
    features,
    packed_dot: gpu.wgslLanguageFeatures?.has('packed_4x8_integer_dot_product') ?? false,
    limits: {
      buffer: maxBufferSize,
      binding: maxStorageBufferBindingSize,
      workgroup: maxComputeWorkgroupStorageSize,
      groups: maxComputeWorkgroupsPerDimension,
    },
  };
}
