// A loaded model: one worker, one conversation.
import { AnswerStream, camelKeys } from './answer.ts';
import type { Client } from './client.ts';
import { failure } from './errors.ts';
import { generateOptionNames } from './generated/options.ts';
import type { Call } from './messages.ts';
import type { GenerateOptions, GoldenReport, MemoryReport, Message, ModelInfo } from './types.ts';

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

export class Model implements AsyncDisposable {
  readonly info: ModelInfo;
  readonly #client: Client;
  readonly #onDispose: () => void;
  #isBusy = false;
  #isDisposed = false;

  /** Models come from engine.load(). */
  constructor(client: Client, info: object, onDispose: () => void) {
    this.#client = client;
    this.info = camelKeys<ModelInfo>(info);
    this.#onDispose = onDispose;
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
    return AnswerStream.start(this.#client, request, options.signal, busy, () => (this.#isBusy = false));
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
    return camelKeys<MemoryReport>(await this.#call<object>({ name: 'memory' }));
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
