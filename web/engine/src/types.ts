// What users pass in and get back.
import type { EngineOptions as CoreEngineOptions, GenerateOptions as CoreGenerateOptions, ModelOptions } from './generated/options.ts';
import type { CacheMode } from './messages.ts';

export type Build = 'simd' | 'relaxed' | 'relaxed-threads';

export interface EngineOptions extends CoreEngineOptions {
  /** Which WebAssembly build; 'auto' takes the best that runs here. */
  wasm?: 'auto' | Build;
  /** Where worker.js and the *.wasm files are, when not beside this script. */
  assets?: string | URL;
}

export interface Capabilities {
  build: Build;
  /** Why not a better build; empty when there is none. */
  buildWhy: string[];
  threads: number;
  threadsWhy: string;
  crossOriginIsolated: boolean;
  relaxedSimd: boolean;
  device: string;
  isa: string;
  families: string[];
  dtypes: string[];
}

export interface Progress {
  /** 'index' reads what is in the file, then 'tokenizer', 'weights' and at last 'ready'. */
  phase: 'index' | 'tokenizer' | 'weights' | 'ready';
  loadedBytes: number;
  /** 0 while it is not known. */
  totalBytes: number;
  file: string;
  /** True when the bytes come from this browser's own storage or from a local file, not over the network. */
  isLocal: boolean;
}

/** A URL or (in Node) a path: a GGUF file, or a folder with config.json. A File or Blob, several Blobs that make up one GGUF when put
 * together, or the Files of a folder. */
export type ModelSource = string | URL | Blob | Blob[];

/** A ModelSource as the worker gets it. */
export type Source =
  | { kind: 'url'; url: string; isFolder: boolean }
  | { kind: 'path'; path: string; isFolder: boolean }
  | { kind: 'blobs'; name: string; blobs: Blob[] }
  | { kind: 'folder'; files: { name: string; blob: Blob }[] };

export interface LoadOptions extends ModelOptions {
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /** Downloads are kept in the browser's storage for this site. 'reload' fetches again, 'off' neither reads nor writes it. */
  cache?: CacheMode;
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

export type FinishReason = 'stop' | 'length' | 'context' | 'cancelled';

export interface Usage {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
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
  bpw: number;
  device: string;
  [key: string]: unknown;
}

export interface Books {
  current: number;
  peak: number;
}

export interface MemoryReport extends Books {
  byTag: Record<'weights' | 'kv' | 'activations' | 'staging' | 'scratch' | 'host', Books>;
  /** What the worker's WebAssembly memory really occupies; it goes back when the model is disposed. */
  wasmBytes: number;
}

export interface GoldenReport {
  passed: boolean;
  outputs: { name: string; n: number; max_abs: number; worst: number; tolerance: number; passed: boolean }[];
  /** What was computed, as the bytes of a safetensors file. */
  dump: Uint8Array;
}
