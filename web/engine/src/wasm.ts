// One instance of the core: its imports, and how strings, bytes and errors go in and out. Pointers are unsigned: the heap may pass 2 GiB.
import { failure, fromPlain, reasonOf, type PlainError } from './errors.ts';
import type { Gpu, Imports } from './gpu.ts';
import type { ThreadBlock } from './messages.ts';

type Exports = Record<string, (...args: (number | bigint)[]) => number> & {
  memory?: WebAssembly.Memory;
  __stack_pointer?: WebAssembly.Global;
  __tls_size?: WebAssembly.Global;
  __tls_align?: WebAssembly.Global;
};

/** The module ended itself: a failed assertion, or no memory for a small thing. */
export class FatalError extends Error {}

const PAGE = 65536;
const STACK_BYTES = 256 * 1024;

/** Shared memory of at most 4 GiB, or of what the system lets a page reserve. */
export function sharedMemory(): WebAssembly.Memory {
  for (let maximum = 65536; ; maximum /= 2) {
    try {
      return new WebAssembly.Memory({ initial: (4 << 20) / PAGE, maximum, shared: true });
    } catch (error) {
      if (maximum <= 4096) throw failure('kWasmUnsupported', { why: 'it cannot reserve shared memory' }, error);
    }
  }
}

/** An exception that passes through the core leaves it in the middle of something. */
function fatalWhereTheyThrow(imports: Imports): Imports {
  const guarded = Object.entries(imports).map(([name, call]) => [
    name,
    (...args: number[]) => {
      try {
        return call(...args);
      } catch (error) {
        throw new FatalError(`${name}: ${reasonOf(error)}`);
      }
    },
  ]);
  return Object.fromEntries(guarded) as Imports;
}

export interface Request {
  file: string;
  offset: number;
  nBytes: number;
  at: number;
}

export class Core {
  readonly #exports: Exports;
  readonly memory: WebAssembly.Memory;
  readonly gpu: Gpu;
  readonly #encoder = new TextEncoder();
  readonly #decoder = new TextDecoder();
  #bytes: Uint8Array;

  private constructor(instance: WebAssembly.Instance, gpu: Gpu, memory: WebAssembly.Memory | undefined) {
    this.gpu = gpu;
    this.#exports = instance.exports as unknown as Exports;
    this.memory = memory ?? this.#exports.memory!;
    this.#bytes = new Uint8Array(this.memory.buffer);
  }

  static async create(module: WebAssembly.Module, gpu: Gpu, memory?: WebAssembly.Memory): Promise<Core> {
    let core: Core | undefined;
    const imports = {
      sb: {
        ...fatalWhereTheyThrow(gpu.imports(() => core!.bytes)),
        now_ms: () => performance.now(),
        log: (level: number, text: number, length: number) => {
          if (level >= 2) console.warn(`subbyte: ${core!.#text(text, length)}`);
        },
        fatal: (text: number, length: number) => {
          throw new FatalError(core!.#text(text, length));
        },
      },
      ...(memory ? { env: { memory } } : {}),
    };
    core = new Core(await WebAssembly.instantiate(module, imports), gpu, memory);
    return core;
  }

  /** Runs the constructors: once a memory. */
  initialize(): void {
    this.#exports['_initialize']!();
  }

  /** Makes this instance a thread of its own over the shared memory. */
  becomeThread(block: ThreadBlock): void {
    this.#exports.__stack_pointer!.value = block.stackTop;
    this.#exports['__wasm_init_tls']!(block.tls);
  }

  threadBlock(): ThreadBlock {
    const { __tls_size, __tls_align } = this.#exports;
    const align = Math.max(16, Number(__tls_align!.value));
    const size = Number(__tls_size!.value);
    const tls = Math.ceil((this.alloc(size + align) || 0) / align) * align;
    const stack = this.alloc(STACK_BYTES + 16);
    return { stackTop: Math.floor((stack + STACK_BYTES) / 16) * 16, tls };
  }

  /** The memory's bytes, also after it has grown. */
  get bytes(): Uint8Array {
    if (this.#bytes.buffer !== this.memory.buffer || this.#bytes.length !== this.memory.buffer.byteLength) {
      this.#bytes = new Uint8Array(this.memory.buffer);
    }
    return this.#bytes;
  }

  call(name: string, ...args: (number | bigint | string)[]): number {
    const owned: number[] = [];
    try {
      const plain = args.map((arg) => {
        if (typeof arg !== 'string') return arg;
        const at = this.putString(arg);
        owned.push(at);
        return at;
      });
      return this.#exports[name]!(...plain);
    } finally {
      for (const at of owned) this.free(at);
    }
  }

  /** Calls a function that returns a handle. */
  handle(name: string, ...args: (number | bigint | string)[]): number {
    const handle = this.call(name, ...args) >>> 0;
    if (!handle) throw this.error();
    return handle;
  }

  /** Calls a function that returns a status. */
  check(name: string, ...args: (number | bigint | string)[]): number {
    const status = this.call(name, ...args);
    if (status < 0) throw this.error();
    return status;
  }

  /** Calls a function that returns text; null only where `name` has nothing more to say. */
  textOrNull(name: string, ...args: (number | bigint | string)[]): string | null {
    const at = this.call(name, ...args) >>> 0;
    return at ? this.#cString(at) : null;
  }

  text(name: string, ...args: (number | bigint | string)[]): string {
    const text = this.textOrNull(name, ...args);
    if (text === null) throw this.error();
    return text;
  }

  json<T>(name: string, ...args: (number | bigint | string)[]): T {
    return JSON.parse(this.text(name, ...args)) as T;
  }

  error(): Error {
    const text = this.textOrNull('sb_error');
    return text === null ? failure('kInternal', { what: 'the core failed without saying why' }) : fromPlain(JSON.parse(text) as PlainError);
  }

  alloc(nBytes: number): number {
    const at = this.#exports['sb_alloc']!(nBytes) >>> 0;
    if (!at) throw failure('kMemoryExhausted', { n_bytes: nBytes, tag: 'staging', current: this.memory.buffer.byteLength });
    return at;
  }

  free(at: number): void {
    this.#exports['sb_dealloc']!(at);
  }

  putString(text: string): number {
    const utf8 = this.#encoder.encode(text);
    const at = this.alloc(utf8.length + 1);
    this.bytes.set(utf8, at);
    this.bytes[at + utf8.length] = 0;
    return at;
  }

  putBytes(bytes: Uint8Array): number {
    const at = this.alloc(Math.max(1, bytes.length));
    this.bytes.set(bytes, at);
    return at;
  }

  /** Calls `fn` with room for a 64-bit length that the core fills in; returns a copy of the bytes that it points at. */
  sized(fn: (length: number) => number): Uint8Array {
    const length = this.alloc(8);
    try {
      const at = fn(length) >>> 0;
      if (!at) throw this.error();
      const n = Number(new DataView(this.memory.buffer).getBigUint64(length, true));
      return this.bytes.slice(at, at + n);
    } finally {
      this.free(length);
    }
  }

  decode(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes);
  }

  /** sb_load_next: what the load wants now. */
  loadNext(load: number, request: number): { wants: number; request: Request } {
    const wants = this.check('sb_load_next', load, request);
    return { wants, request: wants ? this.readRequest(request) : { file: '', offset: 0, nBytes: 0, at: 0 } };
  }

  /** An sb_request or an sb_write: which bytes of which file, and where they are or go in the memory. */
  readRequest(request: number): Request {
    const view = new DataView(this.memory.buffer);
    return {
      file: this.#cString(view.getUint32(request, true)),
      offset: Number(view.getBigUint64(request + 8, true)),
      nBytes: Number(view.getBigUint64(request + 16, true)),
      at: view.getUint32(request + 24, true),
    };
  }

  #cString(at: number): string {
    const bytes = this.bytes;
    return this.#text(at, bytes.indexOf(0, at) - at);
  }

  // A copy first: decoders refuse shared memory.
  #text(at: number, length: number): string {
    return this.#decoder.decode(this.bytes.slice(at >>> 0, (at >>> 0) + length));
  }
}
