// The card that says how far a load is: eight cells, a byte of them.
import type { Progress } from 'subbyte';

import { part, setText } from './dom.ts';
import { bytesOf, duration } from './format.ts';

const STEPS = ['start', 'index', 'tokenizer', 'weights', 'ready'] as const;
type Step = (typeof STEPS)[number];

function phrase(step: Step, isLocal: boolean): string {
  switch (step) {
    case 'start':
      return 'Starting the engine';
    case 'index':
      return 'Reading the index';
    case 'tokenizer':
      return 'Preparing the tokenizer';
    case 'weights':
      return isLocal ? 'Reading the weights from this device' : 'Fetching the weights';
    case 'ready':
      return 'Ready';
  }
}

export class LoadCard {
  readonly #card = part('load');
  readonly #bar = part('progress');
  #startedAt = 0;
  #firstBytes: { at: number; bytes: number } | null = null;

  constructor(onCancel: () => void) {
    part('cancel-load').addEventListener('click', onCancel);
  }

  start(name: string): void {
    this.#startedAt = performance.now();
    this.#firstBytes = null;
    setText(part('load-name'), name);
    this.#card.hidden = false;
    this.#show('start', 0, 0, false);
  }

  progress({ phase, loadedBytes, totalBytes, isLocal }: Progress): void {
    if (phase !== 'refinement') this.#show(phase, loadedBytes, totalBytes, isLocal); // that comes behind a model that is ready
  }

  end(): number {
    this.#card.hidden = true;
    return performance.now() - this.#startedAt;
  }

  #show(step: Step, done: number, total: number, isLocal: boolean): void {
    const share = total ? Math.min(1, done / total) : 0;
    setText(part('phase'), phrase(step, isLocal));
    this.#card.dataset['phase'] = step === 'weights' && !isLocal ? 'fetch' : step;
    setText(part('load-bytes'), done ? bytesOf(done, total) : '');
    setText(part('load-left'), isLocal || step !== 'weights' ? '' : this.#left(done, total));
    this.#bar.style.setProperty('--share', String(share));
    this.#bar.setAttribute('aria-valuenow', String(Math.round(share * 100)));
    this.#bar.setAttribute('aria-valuetext', `${phrase(step, isLocal)}${done ? `, ${bytesOf(done, total)}` : ''}`);
    this.#bar.classList.toggle('is-unknown', !total);
  }

  // Only what lasts is worth a forecast, and only once the speed is known.
  #left(done: number, total: number): string {
    const now = performance.now();
    this.#firstBytes ??= { at: now, bytes: done };
    const ms = now - this.#firstBytes.at;
    if (ms < 1500 || !total || done <= this.#firstBytes.bytes) return '';
    const left = ((total - done) * ms) / (done - this.#firstBytes.bytes);
    return left < 2000 ? '' : `about ${duration(Math.ceil(left / 1000) * 1000)} left`;
  }
}
