// Building DOM without a framework.

type Child = Node | string | null | undefined | false;
type Value = string | number | boolean | undefined | ((event: never) => void);

/** An element with attributes (true sets an empty one, false and undefined none, a function listens) and children; strings become text. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Record<string, Value> = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value as EventListener);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** A symbol of the sprite in index.html. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#${name}`);
  svg.append(use);
  return svg;
}

/** A button that is an icon; its label is spoken and shown on hover. */
export function iconButton(name: string, label: string, testId: string, onclick: (event: MouseEvent) => void): HTMLButtonElement {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, 'data-testid': testId, onclick }, icon(name));
}

/** The page's own element with this data-testid: index.html has it, or the build is broken. */
export function part<T extends HTMLElement = HTMLElement>(testId: string): T {
  const found = document.querySelector<T>(`[data-testid="${testId}"]`);
  if (!found) throw new Error(`index.html has no ${testId}`);
  return found;
}

/** A bar that is filled to `share`, 0 … 1; the number beside it says the same. */
export function shareBar(share: number): HTMLElement {
  const bar = h('span', { class: 'share', 'aria-hidden': 'true' });
  bar.style.setProperty('--share', String(share));
  return bar;
}

export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Copies, and says so on the button for a moment. */
export async function copy(button: HTMLButtonElement, text: string): Promise<void> {
  const was = button.getAttribute('aria-label') ?? '';
  try {
    await navigator.clipboard.writeText(text);
    button.dataset['done'] = '';
    button.setAttribute('aria-label', 'Copied');
  } catch {
    // Without leave (or on plain http) there is no clipboard.
    button.setAttribute('aria-label', 'Copying is not allowed here');
    button.title = 'Copying is not allowed here';
  }
  setTimeout(() => {
    delete button.dataset['done'];
    button.setAttribute('aria-label', was);
  }, 1600);
}
