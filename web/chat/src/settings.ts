// How answers are made: the drawer's fields, kept between visits. Query parameters of the same names win for this visit and are not kept.
import type { GenerateOptions } from 'subbyte';

import { part } from './dom.ts';
import { read, write } from './stored.ts';

export interface Settings {
  temperature: number;
  topP: number;
  maxTokens: number;
  /** Null takes another one each time. */
  seed: number | null;
  system: string;
  device: 'auto' | 'webgpu' | 'cpu';
}

// Small models ramble at 1 and repeat themselves at 0.
const DEFAULTS: Settings = { temperature: 0.2, topP: 0.9, maxTokens: 512, seed: null, system: '', device: 'auto' };

const FIELDS = { temperature: 'temperature', topP: 'top-p', maxTokens: 'max-tokens', seed: 'seed', system: 'system', device: 'device' } as const;
type Key = keyof Settings;
const DEVICES = ['auto', 'webgpu', 'cpu'] as const;
const KEYS = Object.keys(FIELDS) as Key[];

const SEEDS = 2 ** 32;

export class SettingsDrawer {
  #values: Settings;
  readonly #onDevice: () => void;
  readonly #dialog = part<HTMLDialogElement>('settings');

  /** `onDevice`: another device was chosen. */
  constructor(query: URLSearchParams, onDevice: () => void) {
    this.#onDevice = onDevice;
    this.#values = { ...DEFAULTS, ...read<Partial<Settings>>('settings', {}) };
    for (const key of KEYS) {
      const given = query.get(FIELDS[key]);
      if (given !== null) this.#set(key, given);
      this.#field(key).addEventListener('input', () => this.#take(key));
    }
    part('settings-reset').addEventListener('click', () => {
      const { device } = this.#values;
      this.#values = { ...DEFAULTS };
      write('settings', null);
      this.#show();
      if (device !== DEFAULTS.device) this.#onDevice();
    });
    part('settings-button').addEventListener('click', () => this.#dialog.showModal());
    this.#show();
  }

  get system(): string {
    return this.#values.system.trim();
  }

  get device(): Settings['device'] {
    return this.#values.device;
  }

  /** Of this page from now on, as if it had been picked in the drawer. */
  setDevice(device: Settings['device']): void {
    this.#values.device = device;
    write('settings', this.#values);
    this.#show();
    this.#onDevice();
  }

  options(): GenerateOptions {
    const { temperature, topP, maxTokens, seed } = this.#values;
    return { temperature, topP, maxTokens, seed: seed ?? Math.floor(Math.random() * SEEDS) };
  }

  #field(key: Key): HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement {
    return part<HTMLInputElement>(`set-${FIELDS[key]}`);
  }

  #set(key: Key, text: string): void {
    if (key === 'system') this.#values.system = text;
    else if (key === 'device') this.#values.device = DEVICES.find((device) => device === text) ?? DEFAULTS.device;
    else if (key === 'seed') this.#values.seed = text.trim() === '' ? null : Number(text);
    else this.#values[key] = Number(text);
  }

  #take(key: Key): void {
    const field = this.#field(key);
    // Half-typed numbers wait; the browser says what is wrong with them.
    if (!field.validity.valid || (key !== 'seed' && key !== 'system' && field.value === '')) return;
    const { device } = this.#values;
    this.#set(key, field.value);
    write('settings', this.#values);
    this.#outputs();
    if (device !== this.#values.device) this.#onDevice();
  }

  #show(): void {
    for (const key of KEYS) this.#field(key).value = String(this.#values[key] ?? '');
    this.#outputs();
  }

  #outputs(): void {
    part('out-temperature').textContent = this.#values.temperature === 0 ? '0, always the likeliest word' : String(this.#values.temperature);
    part('out-top-p').textContent = this.#values.topP === 1 ? '1, off' : String(this.#values.topP);
  }
}
