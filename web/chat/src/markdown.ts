// Markdown as it streams in. Each line is looked at once: a block's kind is settled by how its line begins, and from then on text only
// goes to the end of that block. So nothing flickers, and a long answer costs no more a token than a short one.
import { copy, h, icon } from './dom.ts';
import { InlineText } from './inline.ts';

interface Level {
  list: HTMLUListElement | HTMLOListElement;
  item: HTMLLIElement;
  indent: number;
  content: number;
}

const MARKER = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(?=\S)/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const FENCE = /^(\s*)(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
// The beginning of a line that may still become a list, a heading, a rule, a fence or a table row.
const UNDECIDED = /^\s*(?:[-*+•_][-*+_\s]*|\d{1,9}[.)]?\s*|#{1,6}\s*|`{1,2}|~{1,2}|`{3}.*|~{3}.*|\|.*)?$/s;

export class Markdown {
  readonly #root: HTMLElement;
  #line = ''; // of the current line, while its kind is not known
  #isBegun = false;
  #afterBlank = false;
  #levels: Level[] = [];
  #leaf: { element: HTMLElement; text: InlineText; source: string; nLines: number } | null = null;
  #code: { fence: string; indent: number; text: Text; isEmpty: boolean } | null = null;
  #quote: { stream: Markdown } | null = null;
  #table: HTMLTableSectionElement | null = null;

  constructor(root: HTMLElement) {
    this.#root = root;
  }

  /** Takes more text; show() puts it on the page. */
  push(text: string): void {
    let from = 0;
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', from)) {
      this.#part(text.slice(from, at).replace(/\r$/, ''));
      this.#endLine();
      from = at + 1;
    }
    if (from < text.length) this.#part(text.slice(from));
  }

  show(): void {
    this.#leaf?.text.show(false);
    this.#quote?.stream.show();
  }

  /** Nothing follows. */
  end(): void {
    if (this.#line && !this.#isBegun) this.#begin(this.#line, true);
    this.#closeLeaf();
    this.#code = null;
    this.#closeQuote();
  }

  #part(text: string): void {
    if (this.#isBegun) return this.#more(text);
    this.#line += text;
    this.#begin(this.#line, false);
  }

  #endLine(): void {
    if (!this.#isBegun) this.#begin(this.#line, true);
    if (this.#code && this.#isBegun) this.#code.isEmpty = false;
    if (this.#quote && this.#isBegun) this.#quote.stream.push('\n');
    if (this.#leaf && this.#isBegun) {
      if (/^H\d$/.test(this.#leaf.element.tagName)) this.#closeLeaf();
      else {
        this.#leaf.text.append('\n');
        this.#leaf.nLines++;
      }
    }
    this.#line = '';
    this.#isBegun = false;
  }

  #more(text: string): void {
    if (this.#code) this.#code.text.appendData(text);
    else if (this.#quote) this.#quote.stream.push(text);
    else if (this.#leaf) {
      this.#leaf.text.append(text);
      if (this.#leaf.nLines === 0) this.#leaf.source += text;
    }
  }

  // Decides what the line is. When it is not whole, only if what is missing cannot matter.
  #begin(line: string, isWhole: boolean): void {
    if (this.#code) return this.#beginCode(line, isWhole);
    const indent = /^\s*/.exec(line)![0].replace(/\t/g, '    ').length;

    const mayBeRule = this.#leaf?.nLines === 1 && this.#leaf.source.includes('|') && /^[\s|:-]*$/.test(line);
    if (!isWhole && (UNDECIDED.test(line) || this.#table || mayBeRule)) return;
    if (!line.trim()) {
      this.#closeLeaf();
      this.#closeQuote();
      this.#table = null;
      this.#afterBlank = true;
      return;
    }
    const afterBlank = this.#afterBlank;
    this.#afterBlank = false;

    const quote = /^ {0,3}>\s?/.exec(line);
    if (quote) {
      this.#closeLeaf();
      this.#table = null;
      if (!this.#quote) {
        this.#leaveLists(indent);
        const element = h('blockquote');
        this.#container().append(element);
        this.#quote = { stream: new Markdown(element) };
      }
      this.#isBegun = true;
      return this.#quote.stream.push(line.slice(quote[0].length));
    }
    this.#closeQuote();

    if (this.#leaf?.nLines === 1 && this.#leaf.source.includes('|') && line.includes('|') && TABLE_RULE.test(line)) return this.#beginTable();
    if (this.#table) {
      if (line.includes('|')) return void this.#table.append(row(line, 'td'));
      this.#table = null;
    }

    const fence = FENCE.exec(line);
    if (fence) {
      this.#closeLeaf();
      this.#leaveLists(indent);
      return this.#beginFence(fence[2]!, indent, fence[3]!);
    }
    if (RULE.test(line)) {
      this.#closeLeaf();
      this.#levels = [];
      this.#root.append(h('hr'));
      return;
    }
    const heading = /^ {0,3}(#{1,6})\s+/.exec(line);
    if (heading) {
      this.#levels = [];
      // The page's own heading is the first level; three sizes are enough in a conversation.
      const tag = (['h3', 'h4', 'h5'] as const)[Math.min(heading[1]!.length, 3) - 1]!;
      return this.#beginLeaf(this.#block(tag), line.slice(heading[0].length).replace(/\s+#+\s*$/, ''));
    }
    const marker = MARKER.exec(line);
    if (marker) return this.#beginItem(indent, marker[2]!, marker[0].length, line.slice(marker[0].length));

    const text = line.trimStart();
    if (this.#leaf) {
      this.#isBegun = true;
      return this.#leaf.text.append(text);
    }
    if (afterBlank || !this.#levels.length) this.#leaveLists(indent);
    this.#beginLeaf(this.#block('p'), text);
  }

  #beginCode(line: string, isWhole: boolean): void {
    const code = this.#code!;
    const trimmed = line.trim();
    const mayClose = trimmed === '' ? line.length < 4 : code.fence.startsWith(trimmed) || (trimmed.startsWith(code.fence) && /^(.)\1*$/.test(trimmed));
    if (isWhole && mayClose && trimmed.length >= code.fence.length) {
      this.#code = null;
      return;
    }
    if (!isWhole && mayClose) return;
    // Code inside a list is indented as the list is; that much is not its own.
    let skip = 0;
    while (skip < code.indent && /\s/.test(line[skip] ?? '')) skip++;
    code.text.appendData((code.isEmpty ? '' : '\n') + line.slice(skip));
    code.isEmpty = false;
    this.#isBegun = true;
  }

  #beginFence(fence: string, indent: number, language: string): void {
    const text = document.createTextNode('');
    const button = h(
      'button',
      { type: 'button', class: 'copy', 'aria-label': 'Copy this code', 'data-testid': 'copy-code', onclick: () => void copy(button, text.data) },
      icon('i-copy'),
      h('span', { class: 'copy-label' }, 'Copy'),
    );
    const pre = h('pre', { tabindex: '0' }, h('code', {}, text));
    this.#container().append(h('div', { class: 'code' }, h('div', { class: 'code-head' }, h('span', {}, language || 'code'), button), pre));
    this.#code = { fence, indent, text, isEmpty: true };
  }

  #beginItem(indent: number, mark: string, content: number, text: string): void {
    this.#closeLeaf();
    const isOrdered = /\d/.test(mark);
    while (this.#levels.length && indent < this.#levels.at(-1)!.indent) this.#levels.pop();
    let top = this.#levels.at(-1);
    const isNested = top && indent >= Math.min(top.content, top.indent + 2);
    const item = h('li');
    if (top && !isNested && (top.list instanceof HTMLOListElement) !== isOrdered) {
      this.#levels.pop();
      top = undefined;
    }
    if (top && !isNested) {
      top.list.append(item);
      Object.assign(top, { item, content });
    } else {
      const start = isOrdered ? Number.parseInt(mark, 10) : 1;
      const list = isOrdered ? h('ol', start === 1 ? {} : { start }) : h('ul');
      (isNested ? top!.item : this.#container()).append(list);
      list.append(item);
      this.#levels.push({ list, item, indent, content });
    }
    // "- [x] done" is a task.
    const task = /^\[([ xX])\]\s+/.exec(text);
    if (task) {
      item.className = 'task';
      item.append(h('span', { class: task[1] === ' ' ? 'box' : 'box is-done', role: 'img', 'aria-label': task[1] === ' ' ? 'to do' : 'done' }));
    }
    this.#beginLeaf(item, task ? text.slice(task[0].length) : text);
  }

  #beginTable(): void {
    const { element, source } = this.#leaf!;
    this.#leaf = null;
    this.#table = h('tbody');
    element.replaceWith(h('div', { class: 'table', tabindex: '0' }, h('table', {}, h('thead', {}, row(source, 'th')), this.#table)));
  }

  #block<K extends 'p' | 'h3' | 'h4' | 'h5'>(tag: K): HTMLElementTagNameMap[K] {
    this.#closeLeaf();
    const element = h(tag);
    this.#container().append(element);
    return element;
  }

  #beginLeaf(element: HTMLElement, text: string): void {
    this.#closeLeaf();
    this.#leaf = { element, text: new InlineText(element), source: text, nLines: 0 };
    this.#leaf.text.append(text);
    this.#isBegun = true;
  }

  #container(): HTMLElement {
    return this.#levels.at(-1)?.item ?? this.#root;
  }

  // A block less indented than a list's text is not part of it.
  #leaveLists(indent: number): void {
    while (this.#levels.length && indent < Math.min(this.#levels.at(-1)!.content, this.#levels.at(-1)!.indent + 2)) this.#levels.pop();
  }

  #closeLeaf(): void {
    this.#leaf?.text.show(true);
    this.#leaf = null;
  }

  #closeQuote(): void {
    this.#quote?.stream.end();
    this.#quote = null;
  }
}

function row(line: string, tag: 'td' | 'th'): HTMLTableRowElement {
  const cells = line.trim().replace(/^\||\|$/g, '').split(/(?<!\\)\|/);
  return h('tr', {}, ...cells.map((cell) => {
    const element = h(tag);
    const text = new InlineText(element);
    text.append(cell.trim().replaceAll('\\|', '|'));
    text.show(true);
    return element;
  }));
}

/** All of `text` at once. */
export function renderMarkdown(root: HTMLElement, text: string): void {
  const stream = new Markdown(root);
  stream.push(text);
  stream.end();
}
