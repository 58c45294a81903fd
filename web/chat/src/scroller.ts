// Keeps the end of the conversation in view while it grows, unless the reader has gone up to read.
import { part } from './dom.ts';

const NEAR = 48;

export class Scroller {
  readonly #box = part('scroll');
  readonly #button = part('to-end');
  #follows = true;

  constructor() {
    const update = () => {
      this.#follows = this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight < NEAR;
      this.#button.hidden = this.#follows;
    };
    this.#box.addEventListener('scroll', update, { passive: true });
    this.#button.addEventListener('click', () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(this.#box);
  }

  /** The content has grown. */
  follow(): void {
    if (this.#follows) this.#box.scrollTop = this.#box.scrollHeight;
  }

  toEnd(): void {
    this.#follows = true;
    this.follow();
    this.#button.hidden = true;
  }
}
