// A loaded model: one worker, one conversation.
import { AnswerStream, camelKeys } from './answer.ts';
import type { Client } from './client.ts';
import { failure } from './errors.ts';
import { generateOptionNames } from './generated/options.ts';
import type { Call, Dropped } from './messages.ts';
import type { DeviceEvent, GenerateOptions, GoldenReport, GpuProfile, MemoryReport, Message, ModelInfo, Progress } from './types.ts';

/** Options under their JavaScript names → JSON under the core's; what is undefined is left out, what is unknown goes through, so that
 * the core can name the nearest one. */
export function coreOptions(options: object, names: Record<string, string>, ours: readonly string[], more: object = {}): string {
  const out: Record<string, unknown> = { ...more };
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || ours.includes(key)) continue;
    out[names[key] ?? key] = value;
  }
  return JSON.stringify(out, (_, value: unknown) => {
    // JSON would turn them into null, and the message would name the wrong fault.
    if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
    return value;
  });
}

/** The local date, for the templates that write it: the core has no calendar. */
function today(): string {
  const now = new Date();
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((n) => String(n).padStart(2, '0')).join('-');
}

/** What a Model tells of itself: the refinement came in, some of it was given back, or it could not be had; the GPU was lost, or the model
 * is whole again. */
export interface ModelEvents {
  device: CustomEvent<DeviceEvent>;
  refined: CustomEvent<{ planes: ModelInfo['planes'] }>;
  dropped: CustomEvent<{ planes: ModelInfo['planes']; freedBytes: number; why: 'asked' | 'memory' }>;
  refinementfailed: CustomEvent<{ error: unknown }>;
}

export interface Model {
  addEventListener<K extends keyof ModelEvents>(type: K, listener: (event: ModelEvents[K]) => void, options?: AddEventListenerOptions | boolean): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: AddEventListenerOptions | boolean): void;
}

export class Model extends EventTarget implements AsyncDisposable {
  readonly #client: Client;
  readonly #onDispose: () => void;
  #info: ModelInfo;
  #isBusy = false;
  #isDisposed = false;
  #refining: { done: Promise<void>; control: AbortController } | null = null;
  #refined: Promise<void> = Promise.resolve();

  /** Models come from engine.load(). */
  constructor(client: Client, info: object, onDispose: () => void) {
    super();
    this.#client = client;
    this.#info = camelKeys<ModelInfo>(info);
    this.#onDispose = onDispose;
    client.onDropped = (dropped) => this.#onDropped(dropped);
  }

  /** What is loaded; a new object after 'refined' and 'dropped'. */
  get info(): ModelInfo {
    return this.#info;
  }

  /** Which planes of a quantised folder are in use: 'base', 'full', or 'partial' after some were given back. */
  get planes(): ModelInfo['planes'] {
    return this.#info.planes;
  }

  /** Settled when no refinement is on its way: resolves once it is in use (or when none was asked for), rejects with what stopped it. */
  get refined(): Promise<void> {
    return this.#refined;
  }

  /**
   * Fetches the refinement, or what of it was given back, behind a running answer, and swaps it in between two tokens; the conversation
   * stays. A second call while one runs joins it. Errors: kRefinementMissing, kHashMismatch, kDownloadFailed, kHttpStatus, kFileMissing,
   * kMemoryExhausted; an AbortError when `signal` fires or dropRefinement() is called. After an error the model goes on as it was.
   */
  refine(options: { onProgress?: ((progress: Progress) => void) | undefined; signal?: AbortSignal | undefined } = {}): Promise<void> {
    if (!this.#refining) {
      const control = new AbortController();
      const done = this.#refine(control, options).finally(() => (this.#refining = null));
      this.#refining = { done, control };
      this.#refined = done;
      done.catch(() => {}); // whoever asks hears it; so do listeners to 'refinementfailed'
    }
    return this.#refining.done;
  }

  async #refine(
    control: AbortController,
    { onProgress, signal }: { onProgress?: ((progress: Progress) => void) | undefined; signal?: AbortSignal | undefined },
  ): Promise<void> {
    const stop = () => control.abort(signal!.reason);
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      const info = await this.#client.ask<object>({ type: 'refine' }, { signal: control.signal, onProgress });
      this.#info = camelKeys<ModelInfo>(info);
      this.#tell('refined', { planes: this.planes });
    } catch (error) {
      this.#tell('refinementfailed', { error });
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  /**
   * Gives refinements back between two tokens, whole matrices in the order that the folder names, until at least `bytes` are free; all of
   * them when it is left out. Ends a refinement that is still coming. refine() brings them back.
   */
  async dropRefinement(options: { bytes?: number } = {}): Promise<{ freedBytes: number }> {
    const { bytes = Infinity } = options;
    if (!(bytes >= 0)) throw failure('kOptionInvalid', { option: 'bytes', value: String(bytes), expected: 'a number of at least 0' });
    this.#refining?.control.abort();
    const dropped = await this.#call<Dropped>({ name: 'dropRefinement', bytes });
    this.#onDropped(dropped);
    return { freedBytes: dropped.freedBytes };
  }

  #onDropped({ freedBytes, why, info }: Dropped): void {
    this.#info = camelKeys<ModelInfo>(info);
    if (freedBytes) this.#tell('dropped', { planes: this.planes, freedBytes, why });
  }

  #onDevice(event: DeviceEvent): void {
    if (event.state !== 'lost') this.#info = { ...this.#info, device: event.device, deviceWhy: event.why };
    this.#tell('device', event);
  }

  #tell<K extends keyof ModelEvents>(type: K, detail: ModelEvents[K]['detail']): void {
    if (!this.#isDisposed) this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * Answers a conversation, or a string: a user's message when the model has a chat template (and `raw` is not set), else text to go on
   * with; or token ids. One answer at a time: a second one while the first runs fails with kSessionBusy.
   */
  generate(prompt: string | Message[] | ArrayLike<number>, options: GenerateOptions = {}): AnswerStream {
    let asked: object;
    if (typeof prompt === 'string') {
      const isChat = this.info.hasChatTemplate && !options.raw;
      asked = isChat ? { messages: [{ role: 'user', content: prompt }], date: today() } : { prompt };
    } else {
      const list = Array.from(prompt as ArrayLike<Message | number>);
      asked = typeof list[0] === 'object' ? { messages: list, date: today() } : { ids: list };
    }
    const request = coreOptions(options, generateOptionNames, ['raw', 'signal'], asked);
    const busy = this.#isBusy;
    this.#isBusy = true;
    return AnswerStream.start(this.#client, request, options.signal, busy, (event) => this.#onDevice(event), () => (this.#isBusy = false));
  }

  async tokenize(text: string, options: { addSpecial?: boolean } = {}): Promise<number[]> {
    const core = JSON.stringify({ add_special: options.addSpecial ?? true });
    return (await this.#call<{ ids: number[] }>({ name: 'encode', text, options: core })).ids;
  }

  detokenize(ids: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): Promise<string> {
    const core = JSON.stringify({ skip_special: options.skipSpecial ?? true });
    return this.#call({ name: 'decode', ids: Int32Array.from(ids), options: core });
  }

  /** The text that the chat template makes of a conversation. */
  chatPrompt(messages: Message[], more: { tools?: unknown[]; addGenerationPrompt?: boolean } = {}): Promise<string> {
    const request = { messages, date: today(), ...(more.tools ? { tools: more.tools } : {}), add_generation_prompt: more.addGenerationPrompt ?? true };
    return this.#call({ name: 'chat', request: JSON.stringify(request) });
  }

  /** Bytes in use and at the peak, by tag. */
  async memory(): Promise<MemoryReport> {
    const { gpu, ...report } = camelKeys<MemoryReport>(await this.#call<object>({ name: 'memory' }));
    return { ...report, gpu: camelKeys(gpu) };
  }

  /** Where the GPU's time of the last token went. The conversation begins anew.
   * Errors: kArgumentInvalid where the GPU tells no times, kSessionBusy. */
  async profile(): Promise<GpuProfile> {
    if (this.#isBusy) throw failure('kSessionBusy');
    return this.#call({ name: 'profile' });
  }

  /** Peaks count from here. */
  async resetPeak(): Promise<void> {
    await this.#call({ name: 'resetPeak' });
  }

  /** What is in the file: name, dtype, shape and bytes of each tensor. */
  tensors(): Promise<{ name: string; dtype: string; shape: number[]; n_bytes: number; bpw: number }[]> {
    return this.#call({ name: 'tensors' });
  }

  /** How full the conversation's cache is. */
  async context(): Promise<{ nTokens: number; context: number; kvBytes: number }> {
    return camelKeys(await this.#call<object>({ name: 'session' }));
  }

  /** Forgets the conversation. */
  async reset(): Promise<void> {
    if (this.#isBusy) throw failure('kSessionBusy');
    await this.#call({ name: 'reset' });
  }

  /** Runs the inputs of a golden.safetensors and compares with its outputs. */
  golden(bytes: Uint8Array): Promise<GoldenReport> {
    return this.#call({ name: 'golden', bytes });
  }

  /** Ends the worker and gives its bytes back. */
  async dispose(): Promise<void> {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#refining?.control.abort();
    await this.#client.close();
    this.#onDispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #call<T>(call: Call): Promise<T> {
    return this.#client.ask<T>({ type: 'call', call });
  }
}
