// A running answer: an async iterable of its parts, and a promise of the whole.
import { abortError, failure } from './errors.ts';
import type { Client } from './client.ts';
import type { Answer, DeviceEvent, FinishReason, Part, Usage } from './types.ts';

type CoreEvent =
  | { type: 'prefill'; n_tokens: number; done: number; ms: number }
  | { type: 'token'; id: number | null; text: string; ms: number; top?: Part['top'] }
  | ({ type: 'device' } & DeviceEvent)
  | { type: 'done'; finish_reason: FinishReason; usage: Record<string, number>; text: string; ids: number[] };

const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The core's snake_case as JavaScript's camelCase, one level deep. */
export function camelKeys<T>(object: object): T {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [camel(key), value])) as T;
}

/**
 * `for await (const part of stream)` gives the tokens as they come; leaving the loop cancels the answer. `await stream.result` gives the
 * whole, with or without a loop. The answer runs from the start, read or not.
 */
export class AnswerStream implements AsyncIterable<Part> {
  /** Rejects with what the loop throws: SubbyteError, or an AbortError when the signal fired. */
  readonly result: Promise<Answer>;
  readonly #cancel: () => void;
  readonly #parts: Part[] = [];
  #wake: (() => void) | null = null;
  #isOver = false;
  #error: unknown = null;
  #finish!: (answer: Answer) => void;
  #break!: (error: unknown) => void;

  private constructor(cancel: () => void) {
    this.#cancel = cancel;
    this.result = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#break = reject;
    });
    this.result.catch(() => {}); // whoever only loops hears it there
  }

  /** Starts an answer, unless the model is `busy`. `onOver` hears once that the next one may start. */
  static start(
    client: Client,
    request: string,
    signal: AbortSignal | undefined,
    busy: boolean,
    onDevice: (event: DeviceEvent) => void,
    onOver: () => void,
  ): AnswerStream {
    let id = 0;
    const stream = new AnswerStream(() => client.cancel(id));
    const stop = () => {
      // The worker still ends its step; a next answer queues behind that, so the session is usable at once.
      if (id) {
        client.forget(id);
        client.cancel(id);
      }
      stream.#fail(abortError(signal!.reason));
    };
    stream.#onDevice = onDevice;
    let isFree = false;
    stream.#onOver = () => {
      signal?.removeEventListener('abort', stop);
      if (!busy && !isFree) onOver();
      isFree = true;
    };
    if (busy) {
      stream.#fail(failure('kSessionBusy'));
      return stream;
    }
    if (signal?.aborted) {
      stop();
      return stream;
    }
    signal?.addEventListener('abort', stop, { once: true });
    id = client.start(
      request,
      (events) => {
        for (const event of events) stream.#receive(JSON.parse(event) as CoreEvent, () => client.forget(id));
      },
      (error) => stream.#fail(error),
    );
    return stream;
  }

  #onOver: () => void = () => {};
  #onDevice: (event: DeviceEvent) => void = () => {};

  /** Ends the answer within one step; the loop ends, and `result` has what came until then. */
  cancel(): void {
    if (this.#isOver) return;
    this.#cancel();
    this.#onOver(); // a next answer may be asked for now: it queues behind the cancel
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Part, void, void> {
    try {
      for (;;) {
        const part = this.#parts.shift();
        if (part) yield part;
        else if (this.#error) throw this.#error;
        else if (this.#isOver) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.cancel();
    }
  }

  #receive(event: CoreEvent, forget: () => void): void {
    if (event.type === 'token') {
      this.#parts.push({ text: event.text, id: event.id, ms: event.ms, ...(event.top ? { top: event.top } : {}) });
      this.#wakeUp();
    } else if (event.type === 'device') {
      const { state, device, why } = event;
      this.#onDevice({ state, device, why });
    } else if (event.type === 'done') {
      forget();
      const { text, ids, finish_reason, usage } = event;
      this.#done({ text, ids, finishReason: finish_reason, usage: camelKeys<Usage>(usage) });
    }
  }

  #done(answer: Answer): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onOver();
    this.#finish(answer);
    this.#wakeUp();
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#error = error;
    // Parts that nobody has read yet come first; after an abort nobody wants them.
    if (error instanceof Error && error.name === 'AbortError') this.#parts.length = 0;
    this.#onOver();
    this.#break(error);
    this.#wakeUp();
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }
}
