// What users pass in and get back.
import type {
  EngineOptions as CoreEngineOptions,
  GenerateOptions as CoreGenerateOptions,
  ModelOptions,
  QuantizeOptions as CoreQuantizeOptions,
} from './generated/options.ts';
import type { CacheMode } from './messages.ts';

export type Build = 'simd' | 'relaxed' | 'simd-threads' | 'relaxed-threads';

export interface EngineOptions extends CoreEngineOptions {
  /** Which WebAssembly build; 'auto' takes the best that runs here. */
  wasm?: 'auto' | Build;
  /** Where worker.js and the *.wasm files are, when not beside this script. */
  assets?: string | URL;
  /** In a page: measures anew how many threads answer soonest, instead of taking what an earlier start found. */
  retune?: boolean;
}

/** What a number of threads was measured to do. */
export interface Measured {
  isa: string;
  threads: number;
  gweightsPerS: number;
  gmacPerS: number;
  /** Nanoseconds that a weight of a model takes in an answer of usual length. */
  answerNs: number;
}

export interface Capabilities {
  build: Build;
  /** Why not a better build; empty when there is none. */
  buildWhy: string[];
  threads: number;
  threadsWhy: string;
  /** What was measured to choose them, when this start did so. */
  measured: Measured[];
  crossOriginIsolated: boolean;
  relaxedSimd: boolean;
  device: string;
  /** Why it is not the GPU, where that was wanted; else empty. */
  deviceWhy: string;
  isa: string;
  families: string[];
  dtypes: string[];
  /** Of device "webgpu". */
  gpu?: GpuInfo;
}

export interface GpuInfo {
  /** As far as the browser tells; empty where it keeps that to itself. */
  adapter: string;
  vendor: string;
  architecture: string;
  /** It computes in software: the option device "auto" does not take it. */
  software: boolean;
  /** What the kernels may use of shader-f16, subgroups and timestamp-query. */
  features: string[];
  packedDot: boolean;
  /** Bytes of a buffer, of a binding and of a workgroup's memory; workgroups in a dimension. */
  limits: { buffer: number; binding: number; workgroup: number; groups: number };
}

/** Where the GPU's time goes in a run of the model: the last token, as a rule. */
export interface GpuProfile {
  /** The costliest first. */
  steps: StepTime[];
  /** Microseconds of all steps in their order, as a token has them: with what they wait for between them. */
  tokenUs: number;
}

/** A step of the last run, and how often the run has such. Microseconds: by which a token without it is shorter (what was written before it is
 * waited for), and of all of its kind one behind the other, each with its own weights, which is what the kernel can do. */
export interface StepTime {
  kernel: string;
  groups: [number, number, number];
  n: number;
  tokenUs: number;
  us: number;
}

export interface Progress {
  /** 'index' reads what is in the file, then 'tokenizer', 'weights' and at last 'ready'; then 'refinement', behind the model that answers
   * already, and 'ready' once more. */
  phase: 'index' | 'tokenizer' | 'weights' | 'ready' | 'refinement';
  loadedBytes: number;
  /** 0 while it is not known. */
  totalBytes: number;
  file: string;
  /** True when the bytes come from this browser's own storage or from a local file, not over the network. */
  isLocal: boolean;
}

/** A URL or (in Node) a path: a GGUF file, or a folder with config.json. A File or Blob, several Blobs that make up one GGUF when put
 * together, or the Files of a folder; or the handle of a folder, as quantize() returns it. */
export type ModelSource = string | URL | Blob | Blob[] | FileSystemDirectoryHandle;

/** A ModelSource as the worker gets it. */
export type Source =
  | { kind: 'url'; url: string; isFolder: boolean }
  | { kind: 'path'; path: string; isFolder: boolean }
  | { kind: 'blobs'; name: string; blobs: Blob[] }
  | { kind: 'folder'; files: { name: string; blob: Blob }[] }
  | { kind: 'handle'; handle: FileSystemDirectoryHandle };

export interface LoadOptions extends Omit<ModelOptions, 'planes'> {
  /** Of a quantised folder with a refinement: 'base' loads a complete smaller model, 'full' waits for all of it, 'progressive' answers with
   * the base while the refinement comes (model.refined). Default 'progressive'. */
  planes?: 'base' | 'full' | 'progressive';
  /** Bytes by the engine's books that this model should keep to: above, its refinement is given back a matrix at a time, the one that
   * matters least first, and none is fetched that would not fit. */
  memoryLimit?: number;
  /** Also of a refinement that comes behind the model. */
  onProgress?: (progress: Progress) => void;
  /** Stops the load; once load() has returned, the refinement that is still coming. */
  signal?: AbortSignal;
  /** Downloads are kept in the browser's storage for this site. 'reload' fetches again, 'off' neither reads nor writes it. */
  cache?: CacheMode;
}

export interface QuantizeProgress {
  /** 'load' reads a model, 'sensitivity' and 'quantize' work, 'evaluate' measures what was lost. */
  phase: 'load' | 'sensitivity' | 'quantize' | 'evaluate';
  /** Of this phase, 0 … 1. */
  fraction: number;
  /** Of this phase; null while it is not known. */
  leftMs: number | null;
}

export interface QuantizeOptions extends CoreQuantizeOptions {
  /** What to calibrate on, of the kind that the model will read: a few hundred kilobytes. Its last twelfth is kept to measure the loss. */
  text: string;
  /** {group: format}, in place of a sensitivity run. */
  allocation?: Record<string, unknown>;
  /** Windows of the text's end to measure the loss on; 0 skips it. Default 8. */
  evalWindows?: number;
  onProgress?: (progress: QuantizeProgress) => void;
  signal?: AbortSignal;
  /** Of the source's download, as in LoadOptions. */
  cache?: CacheMode;
}

/** Where a quantised folder goes: a name in the site's storage, or the handle of an empty folder; in Node a path. */
export type QuantizeTarget = string | FileSystemDirectoryHandle;

export interface Quantized {
  /** For engine.load(). */
  folder: string | FileSystemDirectoryHandle;
  report: { weightBytes: number; nParameters: number; bpw: number; bpwLinears: number; bpwEmbedding: number; [key: string]: unknown };
  /** Null when it was skipped, or when the text was too short. */
  evaluation: { kl: number; klSe: number; ppl: number; pplRef: number; top1: number; top1Ref: number; top1Drop: number; nTokens: number; [key: string]: unknown } | null;
}

export interface Message {
  role: string;
  content: string;
  [key: string]: unknown;
}

export interface GenerateOptions extends CoreGenerateOptions {
  /** Take a string prompt as it is, without the chat template. */
  raw?: boolean;
  signal?: AbortSignal;
}

export interface Part {
  /** Whole characters only; may be empty while one is incomplete. */
  text: string;
  /** Null for a last piece of text that earlier tokens held back. */
  id: number | null;
  /** Since the answer was asked for. */
  ms: number;
  /** With the option topLogits: the likeliest ids for this place, with their logits before sampling. */
  top?: { id: number; logit: number }[];
}

/** What became of the device in the middle of an answer. The answer goes on by itself. */
export interface DeviceEvent {
  /** 'lost': the GPU is gone; 'restored': it is there again, with the model; 'fallback': the CPU goes on, and `why`. */
  state: 'lost' | 'restored' | 'fallback';
  device: string;
  why: string;
}

export type FinishReason = 'stop' | 'length' | 'context' | 'cancelled';

export interface Usage {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  /** With the option draftTokens: tokens guessed and checked together with others, and those of them that were chosen. */
  guessedTokens: number;
  guessedRight: number;
  prefillMs: number;
  decodeMs: number;
  firstTokenMs: number;
  prefillTokensPerS: number;
  decodeTokensPerS: number;
}

export interface Answer {
  text: string;
  ids: number[];
  finishReason: FinishReason;
  usage: Usage;
}

export interface ModelInfo {
  name: string;
  family: string;
  context: number;
  vocab: number;
  layers: number;
  hidden: number;
  hasChatTemplate: boolean;
  hasTokenizer: boolean;
  nParameters: number;
  weightBytes: number;
  /** True bits per weight of what is loaded now, scales counted. */
  bpw: number;
  device: string;
  /** Why it does not run where it did, or was asked to; empty when it does. */
  deviceWhy: string;
  /** What was checked before it could answer: of the kernels that it runs (none on the CPU) those whose results were compared, in stretches of
   * its passes, with the CPU's; the largest squared error over squared values. `checked` is 0 where an earlier visit has found them right. */
  selfCheck: { kernels: number; checked: number; stretches: number; worst: number; ms: number };
  /** Which planes are in use; 'full' also of a model without refinement. */
  planes: 'base' | 'partial' | 'full';
  hasRefinement: boolean;
  [key: string]: unknown;
}

export interface Books {
  current: number;
  peak: number;
}

export interface MemoryReport extends Books {
  byTag: Record<'weights' | 'kv' | 'activations' | 'staging' | 'scratch' | 'host', Books>;
  /** What of all that lies in the GPU's own memory. */
  gpu: Books & { byTag: MemoryReport['byTag'] };
  /** What the worker's WebAssembly memory really occupies; it goes back when the model is disposed. */
  wasmBytes: number;
  /** Of all buffers of the GPU that are there. */
  gpuBytes: number;
}

export interface GoldenReport {
  passed: boolean;
  outputs: { name: string; n: number; max_abs: number; worst: number; tolerance: number; passed: boolean }[];
  /** What was computed, as the bytes of a safetensors file. */
  dump: Uint8Array;
}
