// One message on the page: a question, or an answer with what can be done about it.
import type { FinishReason } from 'subbyte';

import { copy, h, iconButton } from './dom.ts';
import { count, duration, rate } from './format.ts';
import { Markdown, renderMarkdown } from './markdown.ts';
import type { Figures } from './strip.ts';

export interface Turn {
  role: 'user' | 'assistant';
  content: string;
  /** Of an answer: the figures under it, and how it ended. */
  note?: string;
  ended?: FinishReason;
}

const ENDED: Partial<Record<FinishReason, string>> = {
  cancelled: 'stopped',
  length: 'cut at the longest answer allowed (see Settings)',
  context: 'the context is full: start a new chat',
};

export function noteOf(ended: FinishReason, usage: Figures | null): string {
  const figures = usage?.completionTokens
    ? [
        `${count(usage.completionTokens)} ${usage.completionTokens === 1 ? 'token' : 'tokens'}`,
        usage.decodeTokensPerS ? `${rate(usage.decodeTokensPerS)} tok/s` : '',
        `first after ${duration(usage.firstTokenMs)}`,
      ]
    : [];
  return [ENDED[ended] ?? '', ...figures].filter(Boolean).join(' · ');
}

export class QuestionView {
  readonly element: HTMLElement;
  readonly #text = h('div', { class: 'question-text', 'data-testid': 'question' });
  readonly #edit: HTMLButtonElement;
  #turn: Turn;

  constructor(turn: Turn, onEdit: (text: string) => void) {
    this.#turn = turn;
    this.#text.textContent = turn.content;
    this.#edit = iconButton('i-edit', 'Edit this question', 'edit', () => this.#startEdit(onEdit));
    this.element = h('article', { class: 'turn question', 'aria-label': 'You', 'data-testid': 'message', 'data-role': 'user' }, this.#text, h('div', { class: 'actions' }, this.#edit));
  }

  #startEdit(onEdit: (text: string) => void): void {
    const field = h('textarea', { 'aria-label': 'Edit your question', rows: 3, 'data-testid': 'edit-text' });
    field.value = this.#turn.content;
    const close = () => {
      form.replaceWith(this.#text);
      this.element.classList.remove('is-editing');
      this.#edit.focus();
    };
    const form = h(
      'form',
      {
        class: 'edit-form',
        onsubmit: (event: SubmitEvent) => {
          event.preventDefault();
          const text = field.value.trim();
          if (!text) return;
          close();
          onEdit(text);
        },
        onkeydown: (event: KeyboardEvent) => {
          if (event.key === 'Escape') {
            event.stopPropagation();
            close();
          } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            form.requestSubmit();
          }
        },
      },
      field,
      h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'button is-main', 'data-testid': 'edit-send' }, 'Ask again'), h('button', { type: 'button', class: 'button', onclick: close }, 'Cancel')),
    );
    this.element.classList.add('is-editing');
    this.#text.replaceWith(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

export class AnswerView {
  readonly element: HTMLElement;
  readonly #body = h('div', { class: 'answer-text', 'data-testid': 'answer' });
  readonly #note = h('span', { class: 'note', 'data-testid': 'answer-note' });
  readonly #wait = h('p', { class: 'waiting', 'data-testid': 'waiting' }, h('span', { class: 'waiting-cells', 'aria-hidden': 'true' }), h('span', {}));
  readonly #turn: Turn;
  #markdown: Markdown | null = null;

  /** A turn without `ended` is one that still comes. */
  constructor(turn: Turn, onAgain: () => void) {
    this.#turn = turn;
    const copyButton = iconButton('i-copy', 'Copy this answer', 'copy-answer', () => void copy(copyButton, this.#turn.content));
    const again = iconButton('i-again', 'Answer again', 'regenerate', onAgain);
    this.element = h(
      'article',
      { class: 'turn answer', 'aria-label': 'subbyte', 'data-testid': 'message', 'data-role': 'assistant' },
      this.#body,
      h('div', { class: 'actions' }, copyButton, again, this.#note),
    );
    if (turn.ended) {
      renderMarkdown(this.#body, turn.content);
      this.#finish();
    } else {
      this.#markdown = new Markdown(this.#body);
      this.element.dataset['state'] = 'waiting';
      this.element.setAttribute('aria-busy', 'true');
      this.#body.before(this.#wait);
    }
  }

  /** What it waits for, until the first text comes. */
  wait(text: string): void {
    this.#wait.lastElementChild!.textContent = text;
  }

  /** Text as it comes; show() paints it. */
  push(text: string): void {
    if (!this.#turn.content) {
      text = text.trimStart();
      if (!text) return;
      this.#wait.remove();
      this.element.dataset['state'] = 'streaming';
    }
    this.#turn.content += text;
    this.#markdown?.push(text);
  }

  show(): void {
    this.#markdown?.show();
  }

  end(ended: FinishReason, usage: Figures | null): void {
    this.#markdown?.end();
    this.#markdown = null;
    this.#turn.ended = ended;
    this.#turn.note = noteOf(ended, usage);
    if (!this.#turn.content) this.#body.append(h('p', { class: 'quiet' }, ended === 'cancelled' ? 'Stopped before the first word.' : 'The model had nothing to say. Ask in other words.'));
    this.#finish();
  }

  /** The answer failed: the card says why, below what came until then. */
  fail(card: HTMLElement): void {
    this.end('cancelled', null);
    this.element.dataset['state'] = 'failed';
    this.#note.textContent = this.#turn.note = '';
    if (!this.#turn.content) this.#body.replaceChildren();
    this.element.querySelector('.actions')?.before(card);
  }

  #finish(): void {
    this.#wait.remove();
    this.element.dataset['state'] = this.#turn.ended === 'cancelled' ? 'stopped' : 'done';
    this.element.removeAttribute('aria-busy');
    this.#note.textContent = this.#turn.note ?? '';
  }
}
