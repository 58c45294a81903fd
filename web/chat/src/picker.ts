// Which model: the server's list, an address, or a file of one's own. Files may also be dropped anywhere on the page.
import type { ModelSource } from 'subbyte';

import { h, icon, part } from './dom.ts';
import { bytes } from './format.ts';

export interface Choice {
  name: string;
  source: ModelSource;
  bytes?: number | undefined;
  note?: string | undefined;
}

interface Listed {
  name: string;
  url: string;
  bytes?: number;
  note?: string;
}

/** A choice from an address. */
export function choiceOf(url: string): Choice {
  const path = new URL(url, location.href).pathname.replace(/\/$/, '');
  const last = decodeURIComponent(path.slice(path.lastIndexOf('/') + 1));
  return { name: last.replace(/\.gguf$/i, '') || url, source: url };
}

function choiceOfFiles(files: File[]): Choice | null {
  const [first] = files;
  if (!first) return null;
  const total = files.reduce((sum, file) => sum + file.size, 0);
  if (files.length === 1) return { name: first.name.replace(/\.gguf$/i, ''), source: first, bytes: total, note: 'from this device' };
  const folder = first.webkitRelativePath.split('/')[0];
  return { name: folder || `${files.length} files`, source: files, bytes: total, note: 'from this device' };
}

export class Picker {
  readonly #dialog = part<HTMLDialogElement>('models');
  readonly #list = part('model-list');
  readonly #onPick: (choice: Choice) => void;
  #current: ModelSource | null = null;
  #choices: Choice[] = [];

  constructor(onPick: (choice: Choice) => void) {
    this.#onPick = onPick;
    for (const button of document.querySelectorAll('[data-opens="models"]')) button.addEventListener('click', () => this.open());
    const field = part<HTMLInputElement>('model-url');
    part<HTMLFormElement>('model-url-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const url = field.value.trim();
      field.setCustomValidity(URL.canParse(url, location.href) && url ? '' : 'Give the address of a GGUF file or of a model folder.');
      if (field.reportValidity()) this.#pick(choiceOf(url));
    });
    field.addEventListener('input', () => field.setCustomValidity(''));
    const file = part<HTMLInputElement>('model-file');
    part('model-file-button').addEventListener('click', () => file.click());
    file.addEventListener('change', () => {
      this.#pick(choiceOfFiles([...(file.files ?? [])]));
      file.value = ''; // the same file may be chosen again
    });
    this.#listenForDrops();
  }

  /** The server's list; empty when it has none. */
  async fetchList(): Promise<Choice[]> {
    try {
      const response = await fetch('models.json', { cache: 'no-cache' });
      const listed = response.ok ? ((await response.json()) as Listed[]) : [];
      this.#choices = listed.map(({ url, ...more }) => ({ ...more, source: url }));
    } catch {
      this.#choices = []; // a plain static host; files and addresses still work
    }
    this.#showList();
    return this.#choices;
  }

  open(): void {
    this.#showList();
    this.#dialog.showModal();
  }

  setCurrent(source: ModelSource | null): void {
    this.#current = source;
  }

  #pick(choice: Choice | null): void {
    if (!choice) return;
    this.#dialog.close();
    this.#onPick(choice);
  }

  #showList(): void {
    const items = this.#choices.map((choice) => {
      const isCurrent = choice.source === this.#current;
      return h(
        'li',
        {},
        h(
          'button',
          { type: 'button', class: 'model-row', 'data-testid': 'model-choice', 'aria-current': isCurrent ? 'true' : undefined, onclick: () => this.#pick(choice) },
          h('span', { class: 'model-name' }, choice.name),
          h('span', { class: 'model-note' }, [choice.bytes ? bytes(choice.bytes) : '', choice.note ?? ''].filter(Boolean).join(' · ')),
          isCurrent ? icon('i-check') : null,
        ),
      );
    });
    this.#list.replaceChildren(...items);
    part('model-list-none').hidden = items.length > 0;
  }

  #listenForDrops(): void {
    const veil = part('drop');
    let depth = 0; // every element under the pointer enters and leaves
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;
    const show = (by: number) => {
      depth = Math.max(0, depth + by);
      veil.hidden = depth === 0;
    };
    addEventListener('dragenter', (event) => hasFiles(event) && (event.preventDefault(), show(1)));
    addEventListener('dragleave', (event) => hasFiles(event) && show(-1));
    addEventListener('dragover', (event) => hasFiles(event) && event.preventDefault());
    addEventListener('drop', (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      show(-depth);
      void filesOf(event.dataTransfer!).then((files) => this.#pick(choiceOfFiles(files)));
    });
  }
}

/** The dropped files; of a dropped folder, what lies directly in it, which is all that a model folder has. */
async function filesOf(data: DataTransfer): Promise<File[]> {
  // The list is emptied as soon as this event is over.
  const plain = [...data.files];
  const entries = [...data.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const folder = entries.find((entry) => entry?.isDirectory) as FileSystemDirectoryEntry | undefined;
  if (!folder) return plain;
  const reader = folder.createReader();
  const inside: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 a call
    if (!some.length) break;
    inside.push(...some);
  }
  const files = inside.filter((entry): entry is FileSystemFileEntry => entry.isFile);
  return Promise.all(files.map((entry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject))));
}
