// The text inside a paragraph: emphasis, code, links. It becomes DOM nodes, never HTML, so whatever a model writes stays text.
import { h } from './dom.ts';

// A mark that has not closed within this many characters is a plain character. It bounds what is read again while text streams in.
const REACH = 1000;
// Marks within marks; deeper ones are plain characters.
const DEPTH = 4;
// Plain text this long is settled even without a space in it.
const STRETCH = 80;

const WORD = /[\p{L}\p{N}]/u;
const SPACE = /\s/;
const ESCAPABLE = /[\\`*_{}[\]()#+\-.!|<>~]/;
const BARE_URL = /^https?:\/\/[^\s<>"'`]+/;

/** The address when it may be followed from here, else null: only the web's own two schemes. */
export function safeUrl(text: string): string | null {
  try {
    const url = new URL(text);
    return url.protocol === 'https:' || url.protocol === 'http:' ? url.href : null;
  } catch {
    return null;
  }
}

const link = (url: string, children: Node[]) => h('a', { href: url, target: '_blank', rel: 'noopener noreferrer nofollow' }, ...children);

interface Parsed {
  nodes: Node[];
  /** Up to here nothing that comes later can change what was read. */
  settled: number;
  /** How many of `nodes` that is. */
  nSettled: number;
}

/** Reads `text`, which comes after the character `before`; `isOver` when nothing follows it. Else an unfinished mark is shown as if it were
 * about to close. */
export function parseInline(text: string, isOver: boolean, before = ' ', depth = 0): Parsed {
  const nodes: Node[] = [];
  let plain = '';
  let settled = 0;
  let nSettled = 0;
  let i = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = '';
  };
  const settle = () => {
    flush();
    settled = i;
    nSettled = nodes.length;
  };
  const put = (node: Node, length: number) => {
    flush();
    nodes.push(node);
    i += length;
    settle();
  };
  // What stays open is either still to come, or was never a mark.
  const mayClose = () => !isOver && text.length - i <= REACH;
  const previous = () => (i > 0 ? text[i - 1]! : before);

  while (i < text.length) {
    const c = text[i]!;
    if (c === '\\') {
      if (i + 1 === text.length && !isOver) break;
      const next = text[i + 1];
      if (next && ESCAPABLE.test(next)) {
        plain += next;
        i += 2;
        continue;
      }
    } else if (c === '\n') {
      flush();
      put(h('br'), 1);
      continue;
    } else if (c === '`') {
      const ticks = run(text, i, '`');
      if (i + ticks === text.length && !isOver) break;
      const close = closingTicks(text, i + ticks, ticks);
      if (close >= 0) {
        put(h('code', {}, codeText(text.slice(i + ticks, close))), close + ticks - i);
        continue;
      }
      if (mayClose()) return open(h('code', {}, text.slice(i + ticks)));
      plain += text.slice(i, i + ticks);
      i += ticks;
      continue;
    } else if (c === '*' || c === '_' || c === '~') {
      const length = run(text, i, c);
      if (i + length === text.length && !isOver) break;
      const tag = c === '~' ? (length === 2 ? 'del' : null) : length === 1 ? 'em' : 'strong';
      const isOpener = tag && depth < DEPTH && length <= 3 && !SPACE.test(text[i + length] ?? ' ') && !(c === '_' && WORD.test(previous()));
      if (isOpener) {
        const close = closingMark(text, i + length, c, length);
        const wrap = (inner: Node[]) => (length === 3 ? h('strong', {}, h('em', {}, ...inner)) : h(tag, {}, ...inner));
        if (close >= 0) {
          put(wrap(parseInline(text.slice(i + length, close), true, c, depth + 1).nodes), close + length - i);
          continue;
        }
        if (mayClose()) return open(wrap(parseInline(text.slice(i + length), false, c, depth + 1).nodes));
      }
      plain += text.slice(i, i + length);
      i += length;
      continue;
    } else if (c === '[' || (c === '!' && text[i + 1] === '[')) {
      const at = c === '!' ? i + 1 : i;
      const found = /^\[((?:\\.|[^\]\\\n]){0,500})\]\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+["'][^"'\n]*["'])?\s*\)/.exec(text.slice(at, at + REACH));
      if (found) {
        const url = safeUrl(found[2]!);
        const label = parseInline(found[1]! || found[2]!, true, c, depth + 1).nodes;
        // A picture would be fetched from wherever the model says: it is a link instead.
        put(url ? link(url, label) : h('span', {}, ...label), found[0].length + at - i);
        continue;
      }
      if (!isOver && /^\[[^\]\n]{0,500}(\](\([^)\s]*)?)?$/.test(text.slice(at, at + REACH))) break;
    } else if (c === '<') {
      const found = /^<(https?:\/\/[^\s<>]+)>/.exec(text.slice(i, i + REACH));
      const url = found && safeUrl(found[1]!);
      if (url) {
        put(link(url, [document.createTextNode(found[1]!)]), found[0].length);
        continue;
      }
    } else if (c === 'h' && !WORD.test(previous())) {
      const found = BARE_URL.exec(text.slice(i, i + REACH));
      if (found) {
        if (!isOver && i + found[0].length === text.length) break;
        const bare = found[0].replace(/[.,;:!?)\]*_]+$/, '');
        const url = safeUrl(bare);
        if (url) {
          put(link(url, [document.createTextNode(bare)]), bare.length);
          continue;
        }
      }
    }
    plain += c;
    i++;
    if (!isOver && (c === ' ' || i - settled > STRETCH)) settle();
  }
  // A mark at the very end waits for what follows it; the rest of the text does not.
  const rest = text.slice(i);
  if (rest && !/^[*_~`\\]+$/.test(rest)) plain += rest;
  flush();
  return { nodes, settled, nSettled };

  function open(node: Node): Parsed {
    settle();
    nodes.push(node);
    return { nodes, settled, nSettled };
  }
}

function run(text: string, at: number, c: string): number {
  let end = at;
  while (text[end] === c) end++;
  return end - at;
}

function closingTicks(text: string, from: number, ticks: number): number {
  for (let i = text.indexOf('`', from); i >= 0 && i - from <= REACH; ) {
    const length = run(text, i, '`');
    if (length === ticks) return i;
    i = text.indexOf('`', i + length);
  }
  return -1;
}

function closingMark(text: string, from: number, c: string, length: number): number {
  for (let i = text.indexOf(c, from); i >= 0 && i - from <= REACH; ) {
    const n = run(text, i, c);
    const isCloser = n >= length && !SPACE.test(text[i - 1]!) && !(c === '_' && WORD.test(text[i + n] ?? ' '));
    // "**" inside "*…*" belongs to something within; three in a row close both.
    if (isCloser && (n === length || n === 3)) return n === 3 && length < 3 ? i + 3 - length : i;
    i = text.indexOf(c, i + n);
  }
  return -1;
}

function codeText(text: string): string {
  const line = text.replace(/\n/g, ' ');
  return /^ .*[^ ].* $/.test(line) ? line.slice(1, -1) : line;
}

/** An element whose text streams in: what is settled stays as it is, only the tail is made again. */
export class InlineText {
  readonly #parent: HTMLElement;
  #pending = '';
  #before = ' '; // the last character that is settled
  #tail: Node[] = [];
  #isStale = false;

  constructor(parent: HTMLElement) {
    this.#parent = parent;
  }

  append(text: string): void {
    this.#pending += text;
    this.#isStale = true;
  }

  show(isOver: boolean): void {
    if (!this.#isStale && !isOver) return;
    this.#isStale = false;
    for (const node of this.#tail) node.parentNode?.removeChild(node);
    const text = isOver ? this.#pending.trimEnd() : this.#pending.replace(/\n+$/, '');
    const { nodes, settled, nSettled } = parseInline(text, isOver, this.#before);
    this.#parent.append(...nodes);
    this.#tail = isOver ? [] : nodes.slice(nSettled);
    if (settled > 0) this.#before = text[settled - 1]!;
    this.#pending = isOver ? '' : this.#pending.slice(settled);
    if (isOver) this.#parent.normalize(); // a text node a word until here
  }
}
