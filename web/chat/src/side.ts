// The narrow card for what goes on beside the chat: a model that is being quantised, a refinement on its way.
import { part, setText } from './dom.ts';
import { duration } from './format.ts';

export interface SideWork {
  title: string;
  /** What is being done now, and how far that is, 0 … 1. */
  phase: string;
  fraction: number;
  /** Milliseconds; null while it is not known. */
  leftMs: number | null;
}

export class SideCard {
  readonly #card = part('side');
  readonly #bar = part('side-progress');

  show({ title, phase, fraction, leftMs }: SideWork): void {
    setText(part('side-title'), title);
    setText(part('side-phase'), phase);
    const percent = Math.floor(fraction * 100);
    setText(part('side-percent'), `${percent} %`);
    setText(part('side-left'), leftMs === null ? '' : `about ${duration(Math.max(1000, Math.ceil(leftMs / 1000) * 1000))} left`);
    this.#bar.style.setProperty('--share', String(fraction));
    this.#bar.setAttribute('aria-valuenow', String(percent));
    this.#card.dataset['state'] = 'running';
    this.#bar.hidden = false;
    this.#card.hidden = false;
  }

  /** Stays until it is closed. */
  fail(title: string, why: string): void {
    setText(part('side-title'), title);
    setText(part('side-phase'), why);
    setText(part('side-percent'), '');
    setText(part('side-left'), '');
    this.#card.dataset['state'] = 'failed';
    this.#bar.hidden = true;
    this.#card.hidden = false;
  }

  /** Of the work with this title; without, whatever is there. */
  hide(title?: string): void {
    if (title === undefined || title === part('side-title').textContent) this.#card.hidden = true;
  }

  constructor() {
    part('side-close').addEventListener('click', () => this.hide());
  }
}
