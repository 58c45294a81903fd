// Where a token's time on the GPU goes: a bar a kernel. Behind the device's details, and with ?profile after the first answer.
import type { GpuProfile, Model, StepTime } from 'subbyte';

import { h, part, shareBar } from './dom.ts';
import { count } from './format.ts';
import { troubleOf } from './trouble.ts';

const MOST_BARS = 14; // what is left shares one

interface Bar {
  name: string;
  nTimes: number;
  us: number; // all times together
}

/** Times the last token's kernels and shows them. The model's conversation is computed anew with the next question. */
export async function showProfile(model: Model): Promise<void> {
  const dialog = part<HTMLDialogElement>('profile');
  const body = part('profile-body');
  body.replaceChildren(h('p', { class: 'quiet', role: 'status' }, 'Each kernel of the last token runs many times between two timestamps.'));
  if (!dialog.open) dialog.showModal();
  try {
    body.replaceChildren(...chart(await model.profile()));
  } catch (error) {
    const { message, hint } = troubleOf(error);
    body.replaceChildren(h('p', { 'data-testid': 'profile-trouble' }, `${message}. ${hint}`));
  }
}

function chart({ steps, tokenUs }: GpuProfile): HTMLElement[] {
  if (!steps.length) return [h('p', { 'data-testid': 'profile-trouble' }, 'Nothing has run on the GPU yet: ask something first.')];
  const bars = barsOf(steps);
  const [us, nTimes] = [sum(bars.map((bar) => bar.us)), sum(bars.map((bar) => bar.nTimes))];
  const most = Math.max(...bars.map((bar) => bar.us));
  const rows = bars.map((bar) => {
    const cells = [count(bar.nTimes), micros(bar.us / bar.nTimes), `${((100 * bar.us) / us).toFixed(1)} %`].map((text) => h('td', {}, text));
    return h('tr', {}, h('th', { scope: 'row' }, bar.name.replaceAll('_', ' ')), ...cells, h('td', { class: 'share-cell' }, shareBar(bar.us / most)));
  });
  const head = ['Kernel', 'Times', 'Each', 'Of all', ''].map((name) => h('th', { scope: 'col' }, name));
  return [
    h('p', { 'data-testid': 'profile-total' }, `${micros(tokenUs)} a token in ${count(nTimes)} kernels; one by one they take ${micros(us)}.`),
    h('div', { class: 'wide' }, h('table', { 'data-testid': 'profile-kernels' }, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...rows))),
    h('p', { class: 'quiet' }, 'Below, each kind by itself, one behind the other with its own weights: what a kernel can do, not what it waits for in a token.'),
  ];
}

/** One a kernel, whatever its size; the costliest first. */
function barsOf(steps: StepTime[]): Bar[] {
  const named = new Map<string, Bar>();
  for (const { kernel, n, us } of steps) {
    const bar = named.get(kernel) ?? { name: kernel, nTimes: 0, us: 0 };
    bar.nTimes += n;
    bar.us += n * us;
    named.set(kernel, bar);
  }
  const bars = [...named.values()].sort((a, b) => b.us - a.us);
  const rest = bars.splice(MOST_BARS);
  return rest.length ? [...bars, { name: `${rest.length} more`, nTimes: sum(rest.map((bar) => bar.nTimes)), us: sum(rest.map((bar) => bar.us)) }] : bars;
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

const micros = (us: number) => (us < 1000 ? `${us.toFixed(us < 10 ? 1 : 0)} µs` : `${(us / 1000).toFixed(2)} ms`);
