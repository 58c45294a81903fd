// The readable side of a run: a table a group, then how many times better ours are than each peer.
import { CASES } from './statistics.mjs';

const number = (x) => (x === undefined ? '' : x >= 1000 ? Math.round(x).toLocaleString('en') : x >= 100 ? x.toFixed(0) : x.toFixed(1));

function grid(lines) {
  const widths = lines[0].map((_, c) => Math.max(...lines.map((l) => l[c].length)));
  return lines.map((l) => '  ' + l.map((cell, c) => (c ? cell.padStart(widths[c]) : cell.padEnd(widths[c]))).join('  ')).join('\n');
}

const same = (a, b) => a.model === b.model && a.dtype === b.dtype && a.threads === b.threads;

export function print_table(samples, contenders, models, write = (s) => process.stdout.write(s + '\n')) {
  const rows = samples.rows();
  const ours = contenders.filter((c) => c.is_ours).map((c) => c.name);
  const payload = rows.filter((r) => r.case === 'payload_br_bytes');
  if (payload.length) {
    write('\nPayload: brotli 11 of the JavaScript and WebAssembly that a page with threads downloads');
    write(grid([['', 'KB'], ...payload.map((r) => [r.contender, (r.median / 1000).toFixed(1)])]));
  }
  for (const group of samples.groups().filter((g) => g.threads)) {
    const mine = rows.filter((r) => same(r, group));
    const clocks = group.threads === 1 ? ['cpu', 'wall'] : ['wall'];
    const columns = Object.keys(CASES).flatMap((name) => clocks.map((clock) => ({ name, clock }))).filter((c) => mine.some((r) => r.case === c.name && r.clock === c.clock));
    const { short, long, answer } = models[group.model].sizes;
    write(`\n${group.model} ${group.dtype}, ${group.threads} thread${group.threads > 1 ? 's' : ''}, prompts of ${short} and ${long} tokens, answers of ${answer}: median (min…max)`);
    const head = ['', ...columns.map((c) => `${c.name}${group.threads === 1 && CASES[c.name].unit === 'tok/s' ? `/${c.clock}` : ''}`)];
    const body = contenders.filter((c) => mine.some((r) => r.contender === c.name)).map((c) => [c.name, ...columns.map((col) => {
      const r = mine.find((m) => m.contender === c.name && m.case === col.name && m.clock === col.clock);
      return r ? `${number(r.median)} (${number(r.min)}…${number(r.max)})` : '·';
    })]);
    write(grid([head, ...body]));
    const ratios = ours.flatMap((a) => contenders.filter((c) => c.name !== a && !c.is_ours).map((c) => [`${a} : ${c.name}`, ...columns.map((col) => {
      const x = samples.times_better(a, c.name, { ...group, case: col.name, clock: col.clock });
      return Number.isFinite(x) ? `${x.toFixed(2)}×` : '·';
    })])).filter((line) => line.some((cell) => cell.endsWith('×')));
    if (ratios.length) write(`times better (above 1: subbyte ahead; median of the ratios within a round)\n${grid([head, ...ratios])}`);
  }
}
