// A failure as the user sees it: what happened, what to do, and the buttons that do it.
import { SubbyteError } from 'subbyte';

import { h, icon } from './dom.ts';

export interface Trouble {
  code: string;
  message: string;
  hint: string;
  retryable: boolean;
  cause: string;
}

export function troubleOf(error: unknown): Trouble {
  if (error instanceof SubbyteError) {
    const { code, message, hint, retryable, cause } = error;
    return { code, message, hint, retryable, cause: cause instanceof Error ? cause.message : '' };
  }
  const message = error instanceof Error ? error.message || error.name : String(error);
  return { code: 'page', message, hint: 'Reload the page; if it happens again, please report it.', retryable: true, cause: '' };
}

export interface Action {
  label: string;
  testId: string;
  run: () => void;
}

/** The first action is the one that we would take. */
export function troubleCard(title: string, trouble: Trouble, actions: Action[]): HTMLElement {
  const buttons = actions.map((action, i) =>
    h('button', { type: 'button', class: i === 0 ? 'button is-main' : 'button', 'data-testid': action.testId, onclick: action.run }, action.label),
  );
  return h(
    'section',
    { class: 'trouble', role: 'alert', 'data-testid': 'error', 'data-code': trouble.code },
    icon('i-alert'),
    h(
      'div',
      { class: 'trouble-body' },
      h('h2', {}, title),
      h('p', { class: 'trouble-message', 'data-testid': 'error-message' }, trouble.message),
      h('p', { class: 'trouble-hint', 'data-testid': 'error-hint' }, trouble.hint),
      h('div', { class: 'buttons' }, ...buttons),
      h('p', { class: 'trouble-code' }, h('code', { 'data-testid': 'error-code' }, trouble.code), trouble.cause && ` · ${trouble.cause}`),
    ),
  );
}
