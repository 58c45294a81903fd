// The strip under the composer: how fast, on what, in how much memory; and the details behind each figure.
import type { Capabilities, DeviceEvent, GpuInfo, MemoryReport, Model, Usage } from 'subbyte';

import type { Loss } from './card.ts';

import { h, part, setText, shareBar } from './dom.ts';
import { bytes, count, duration, rate } from './format.ts';
import { showProfile } from './profile.ts';

const TAGS: [keyof MemoryReport['byTag'], string][] = [
  ['weights', 'Weights'],
  ['kv', 'Conversation (KV cache)'],
  ['activations', 'Activations'],
  ['staging', 'Staging'],
  ['scratch', 'Scratch'],
  ['host', 'Tokenizer and the rest'],
];

const BUILDS: Record<Capabilities['build'], string> = {
  simd: 'SIMD',
  relaxed: 'relaxed SIMD',
  'simd-threads': 'SIMD, threads',
  'relaxed-threads': 'relaxed SIMD, threads',
};

const withoutGpu = ({ gpu: _, ...here }: Capabilities): Capabilities => here;

const MEMORY_MS = 1000; // asking costs the worker a little between two tokens

const list = (rows: [string, string][]) => h('dl', {}, ...rows.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));

/** What is said of an answer. */
export type Figures = Pick<Usage, 'completionTokens' | 'decodeTokensPerS' | 'firstTokenMs'>;

export class Strip {
  readonly #speed = part('tokens-per-s');
  readonly #first = part('first-token');
  readonly #device = part('device');
  readonly #memory = part('memory');
  readonly #bits = part('bits');
  readonly #context = part('context');
  #here: Capabilities | null = null;
  #model: Model | null = null;
  #askedAt = 0;
  #firstMs = 0;
  #lastMs = 0;
  #nTokens = 0;

  constructor() {
    for (const name of ['device', 'memory', 'bits']) anchor(part(name), part(`${name}-details`));
    part('memory-details').addEventListener('toggle', () => void this.refresh());
  }

  setCapabilities(here: Capabilities): void {
    this.#here = here;
    if (here.gpu) return this.#setGpu(here, here.gpu);
    const threads = here.threads === 1 ? '1 thread' : `${here.threads} threads`;
    setText(this.#device, `${here.device.toUpperCase()} · ${BUILDS[here.build]}${here.build.endsWith('threads') ? ` × ${here.threads}` : `, ${threads}`}`);
    this.#device.dataset['build'] = here.build;
    this.#device.dataset['threads'] = String(here.threads);
    const why = [...new Set([...(here.deviceWhy ? [here.deviceWhy] : []), ...here.buildWhy, ...(here.threads === 1 && here.threadsWhy ? [here.threadsWhy] : [])])];
    part('device-details').replaceChildren(
      h('h2', {}, 'Where it runs'),
      list([
        ['Device', here.device.toUpperCase()],
        ['Build', `WebAssembly, ${BUILDS[here.build]}`],
        ['Threads', here.threads === 1 ? '1' : `${here.threads} (${here.threadsWhy})`],
        ['Kernels', here.isa],
      ]),
      ...(why.length
        ? [h('h3', {}, 'Why not faster'), h('ul', { 'data-testid': 'why-not' }, ...why.map((reason) => h('li', {}, sentence(reason))))]
        : [h('p', { class: 'quiet', 'data-testid': 'why-not' }, 'This is the fastest build there is, with every thread it can use.')]),
    );
  }

  #setGpu(here: Capabilities, { adapter, vendor, architecture, features, packedDot, limits }: GpuInfo): void {
    setText(this.#device, adapter ? `WebGPU · ${adapter}` : 'WebGPU');
    this.#device.dataset['build'] = here.build;
    this.#device.dataset['threads'] = String(here.threads);
    const used = [...features, ...(packedDot ? ['packed dot product'] : [])];
    part('device-details').replaceChildren(
      h('h2', {}, 'Where it runs'),
      list([
        ['Device', 'GPU, by WebGPU'],
        ['Adapter', adapter || 'this browser does not name it'],
        ...(vendor ? ([['Vendor', [vendor, architecture].filter(Boolean).join(', ')]] satisfies [string, string][]) : []),
        ['Features', used.join(', ') || 'none beyond the least'],
        ['Largest buffer', bytes(limits.buffer)],
        ['Beside it', `WebAssembly, ${BUILDS[here.build]}`],
      ]),
      h('p', {}, h('button', { type: 'button', class: 'button is-small', 'data-testid': 'profile-button', onclick: () => this.profile() }, 'Time its kernels')),
    );
  }

  /** What the last token's kernels took, where the model is on a GPU. */
  profile(): void {
    part('device-details').hidePopover();
    if (this.#model?.info.device === 'webgpu') void showProfile(this.#model);
  }

  /** The GPU was lost in the middle of an answer, or the model is whole again. */
  setDevice({ state, why }: DeviceEvent): void {
    this.#device.dataset['state'] = state;
    if (state === 'lost') setText(this.#device, 'WebGPU · lost, coming back');
    else if (this.#here) this.setCapabilities(state === 'restored' ? this.#here : { ...withoutGpu(this.#here), device: 'cpu', deviceWhy: why });
  }

  /** `loss` is what the model's card says; null when it says nothing. */
  setModel(model: Model | null, loss: Loss | null = null): void {
    this.#model = model;
    for (const item of [this.#speed, this.#first, this.#memory, this.#context, this.#bits]) item.hidden = true;
    if (!model) return;
    this.showBits(model, loss);
    void this.refresh(true);
  }

  /** The bits that are loaded now. A loss was measured with all planes, and is said of these alone. */
  showBits(model: Model, loss: Loss | null): void {
    const { info, planes } = model;
    const measured = planes === 'full' ? loss : null;
    const figures = measured ? ` · KL ${measured.kl.toFixed(3)} · top-1 ${signed(-100 * measured.top1Drop)} %` : planes === 'full' ? '' : ` · ${planes} planes`;
    setText(this.#bits, info.bpw ? `${info.bpw.toFixed(2)} bits${figures}` : '');
    this.#bits.dataset['bpw'] = String(info.bpw);
    this.#bits.dataset['planes'] = planes;
    this.#bits.hidden = !info.bpw;
    const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
    part('bits-details').replaceChildren(
      h('h2', {}, 'Bits, and what they cost'),
      list([
        ['Bits a weight, scales counted', info.bpw.toFixed(3)],
        ...(loss && planes === 'full'
          ? ([['of the linear layers', loss.bpwLinears.toFixed(3)], ['of the embedding', loss.bpwEmbedding.toFixed(3)]] satisfies [string, string][])
          : []),
        ['Weights', bytes(info.weightBytes)],
      ]),
      ...(measured
        ? [
            h('h3', {}, 'Measured when it was quantised'),
            list([
              ['KL to its source', `${measured.kl.toFixed(4)} ± ${measured.klSe.toFixed(4)}`],
              ['Perplexity', `${measured.ppl.toFixed(2)} (source ${measured.pplRef.toFixed(2)})`],
              ['Next word right', `${percent(measured.top1)} (source ${percent(measured.top1Ref)})`],
              ['Relative drop', percent(measured.top1Drop)],
            ]),
            h('p', { class: 'quiet' }, `On ${count(measured.nTokens)} tokens of text that it was not calibrated on. Source: ${measured.source}.`),
          ]
        : [h('p', { class: 'quiet' }, planes === 'full' ? 'This file does not say what was lost when it was made.' : 'The loss was measured with all planes, which are not all here.')]),
      ...(info.hasRefinement ? [refinementButton(model)] : []),
    );
  }

  startAnswer(): void {
    this.#nTokens = 0;
    this.#speed.hidden = this.#first.hidden = true;
  }

  /** A token, `ms` after the question. */
  token(ms: number): void {
    if (this.#nTokens === 0) {
      this.#firstMs = ms;
      setText(this.#first, `first token ${duration(ms)}`);
      this.#first.hidden = false;
    }
    this.#nTokens++;
    this.#lastMs = ms;
  }

  /** Once a frame while an answer runs. */
  show(): void {
    if (this.#perSecond()) this.#showSpeed(this.#perSecond());
    void this.refresh();
  }

  // 0 while there is nothing to divide by.
  #perSecond(): number {
    const seconds = (this.#lastMs - this.#firstMs) / 1000;
    return this.#nTokens > 1 && seconds > 0 ? (this.#nTokens - 1) / seconds : 0;
  }

  /** `usage` is the core's own account; a stopped answer has only what was seen here. */
  endAnswer(usage: Usage | null): Figures {
    if (usage && usage.completionTokens > 1) this.#showSpeed(usage.decodeTokensPerS);
    void this.refresh(true);
    return usage ?? { completionTokens: this.#nTokens, decodeTokensPerS: this.#perSecond(), firstTokenMs: this.#firstMs };
  }

  async refresh(isAtOnce = false): Promise<void> {
    const now = performance.now();
    if (!this.#model || (!isAtOnce && now - this.#askedAt < MEMORY_MS)) return;
    this.#askedAt = now;
    const model = this.#model;
    try {
      const [memory, context] = await Promise.all([model.memory(), model.context()]);
      if (model !== this.#model) return;
      this.#showMemory(memory);
      setText(this.#context, `context ${count(context.nTokens)} / ${count(context.context)}`);
      this.#context.dataset['tokens'] = String(context.nTokens);
      this.#context.classList.toggle('is-near', context.nTokens > 0.85 * context.context);
      this.#context.hidden = false;
    } catch {
      // The model was closed meanwhile, or its worker broke: the next answer says so.
    }
  }

  #showSpeed(perSecond: number): void {
    setText(this.#speed, `${rate(perSecond)} tok/s`);
    this.#speed.hidden = false;
  }

  #showMemory(memory: MemoryReport): void {
    setText(this.#memory, bytes(memory.current));
    this.#memory.dataset['bytes'] = String(memory.current);
    this.#memory.hidden = false;
    const total = Math.max(memory.current, 1);
    const rows = TAGS.map(([tag, name]) => {
      const books = memory.byTag[tag];
      const there = memory.gpu.byTag[tag].current;
      const where = memory.gpu.current ? [h('td', {}, there ? `${bytes(there)} on the GPU` : '')] : [];
      return h('tr', { 'data-tag': tag }, h('th', { scope: 'row' }, name), h('td', {}, bytes(books?.current ?? 0)), ...where, h('td', { class: 'share-cell' }, shareBar((books?.current ?? 0) / total)));
    });
    part('memory-details').replaceChildren(
      h('h2', {}, 'Memory'),
      h('table', {}, h('tbody', {}, ...rows)),
      list([
        ['In use', bytes(memory.current)],
        ['At the peak', bytes(memory.peak)],
        ...(memory.gpuBytes ? ([['On the GPU', bytes(memory.gpuBytes)]] satisfies [string, string][]) : []),
        ['Held from the browser', bytes(memory.wasmBytes)],
      ]),
    );
  }
}

function refinementButton(model: Model): HTMLElement {
  const give = h('button', { type: 'button', class: 'button is-small', 'data-testid': 'refinement' }, model.planes === 'base' ? 'Fetch the refinement' : 'Give the refinement back');
  give.addEventListener('click', () => {
    give.disabled = true;
    // Its events tell the page how it went.
    void (model.planes === 'base' ? model.refine() : model.dropRefinement()).catch(() => {});
  });
  return h('p', {}, give);
}

/** With a real minus. */
const signed = (n: number) => `${n < 0 ? '−' : '+'}${Math.abs(n).toFixed(1)}`;

const sentence = (text: string) => `${text[0]?.toUpperCase() ?? ''}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`;

/** Opens `panel` above `button`, inside the window. */
function anchor(button: HTMLElement, panel: HTMLElement): void {
  panel.addEventListener('toggle', (event) => {
    const isOpen = (event as ToggleEvent).newState === 'open';
    button.setAttribute('aria-expanded', String(isOpen));
    if (!isOpen) return;
    const at = button.getBoundingClientRect();
    panel.style.bottom = `${innerHeight - at.top + 8}px`;
    panel.style.left = `${Math.max(8, Math.min(at.left, innerWidth - panel.offsetWidth - 8))}px`;
  });
}
