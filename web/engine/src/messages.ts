// What crosses between the page and a model's worker. A message a request; events of a running answer come in batches, one a step.
import type { PlainError } from './errors.ts';
import type { Progress, QuantizeProgress, Source } from './types.ts';

export interface ThreadBlock {
  stackTop: number;
  tls: number;
}

/** What a pool thread needs. The core's worker sends it straight to the thread's: memory that the page has once seen stays reserved until
 * the page's own garbage collector runs, which may be after hundreds of megabytes. */
export interface PoolThread {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
  block: ThreadBlock;
  index: number;
}

export type ToWorker =
  | { type: 'init'; id: number; module: WebAssembly.Module; pool: MessagePort[] }
  | { type: 'engine'; id: number; options: string }
  | { type: 'load'; id: number; source: Source; options: string; cache: CacheMode; memoryLimit: number }
  | { type: 'refine'; id: number }
  | { type: 'quantize'; id: number; job: QuantizeJob }
  | { type: 'start'; id: number; request: string }
  | { type: 'cancel'; id: number }
  | { type: 'call'; id: number; call: Call }
  | { type: 'close' }
  | { type: 'pool'; port: MessagePort };

/** The options are JSON of the core: of both loads, sb_quantizer_create and sb_eval_create. */
export interface QuantizeJob {
  source: Source;
  sourceName: string;
  sourceOptions: string;
  cache: CacheMode;
  target: Source;
  targetOptions: string;
  text: Uint8Array;
  options: string;
  evalWindows: number;
  evalOptions: string;
}

/** A refinement was given back, and what sb_model_info says since. */
export interface Dropped {
  freedBytes: number;
  why: 'asked' | 'memory';
  info: object;
}

export type CacheMode = 'default' | 'reload' | 'off';

export type Call =
  | { name: 'encode'; text: string; options: string }
  | { name: 'decode'; ids: Int32Array; options: string }
  | { name: 'chat'; request: string }
  | { name: 'memory' }
  | { name: 'tensors' }
  | { name: 'session' }
  | { name: 'reset' }
  | { name: 'resetPeak' }
  | { name: 'tuning' }
  | { name: 'profile' }
  | { name: 'dropRefinement'; bytes: number }
  | { name: 'golden'; bytes: Uint8Array };

export type FromWorker =
  | { type: 'value'; id: number; value: unknown }
  | { type: 'error'; id: number; error: PlainError; isAbort?: boolean }
  | { type: 'progress'; id: number; progress: Progress | QuantizeProgress }
  | { type: 'events'; id: number; events: string[] }
  | { type: 'dropped'; dropped: Dropped }
  | { type: 'poolReady' }
  | { type: 'closed' }
  | { type: 'fatal'; why: string };

/** Either end of a worker's channel, in a page or in Node. */
export interface Port<In, Out> {
  post(message: Out, transfer?: Transferable[]): void;
  onMessage(listener: (message: In) => void): void;
}

/** A worker seen from its owner. */
export interface WorkerPort extends Port<FromWorker, ToWorker> {
  /** The worker is gone or broken. */
  onFailure(listener: (why: string) => void): void;
  /** Node only: whether something is awaited of this worker; if not, it does not keep the process alive. */
  setBusy?(isBusy: boolean): void;
  terminate(): void;
}
