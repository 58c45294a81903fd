#!/usr/bin/env node
// Native builds of the command line in turn, with one thread and with two, alone and beside a busy process a core: what a change to the threads
// is worth. All must answer alike. Two processes of one thread, added up, are what the machine has for two threads.
import fs from 'node:fs';
import { execFile } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';

import { while_busy } from './machine.mjs';
import { median } from './statistics.mjs';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { builds: { ...text, default: 'build/release/apps/cli/subbyte' }, rounds: { ...text, default: '5' }, prefill: { ...text, default: '128' }, decode: { ...text, default: '96' }, json: text },
});
const [model] = positionals;
if (!model || !fs.existsSync(model)) {
  process.stderr.write('usage: builds.mjs MODEL [--builds SUBBYTE,SUBBYTE…] [--rounds N] [--prefill N] [--decode N] [--json FILE]   (MODEL: a GGUF or a folder)\n');
  process.exit(2);
}

async function bench(build, threads) {
  const { stdout } = await promisify(execFile)(build, ['bench', model, '--device', 'cpu', '--threads', String(threads),
    '--prefill', values.prefill, '--decode', values.decode, '--repeat', '1', '--json']);
  const { text: answer, prefill: [prefill], decode: [decode] } = JSON.parse(stdout);
  const rate = ({ n_tokens, ms }) => (1000 * n_tokens) / ms;
  return { answer, prefill: rate(prefill), decode: rate(decode) };
}

async function two_processes(build) {
  const [a, b] = await Promise.all([bench(build, 1), bench(build, 1)]);
  return { answer: a.answer, prefill: a.prefill + b.prefill, decode: a.decode + b.decode };
}

const CASES = {
  'one thread': (build) => bench(build, 1),
  'two processes of one thread': two_processes,
  'two threads': (build) => bench(build, 2),
  'two, beside busy processes': (build) => while_busy(() => bench(build, 2)),
};
const builds = values.builds.split(',');
const rows = builds.flatMap((build) => Object.keys(CASES).map((name) => ({ build, case: name, prefill: [], decode: [] })));
let expected;
for (let round = 0; round < Number(values.rounds); round++) {
  for (const [name, run] of Object.entries(CASES)) {
    for (const build of round % 2 ? builds.toReversed() : builds) {
      const { answer, prefill, decode } = await run(build);
      expected ??= answer;
      if (answer !== expected) throw new Error(`${build} answers ${JSON.stringify(answer)}, not ${JSON.stringify(expected)}`);
      const row = rows.find((r) => r.build === build && r.case === name);
      row.prefill.push(prefill);
      row.decode.push(decode);
    }
  }
}
if (values.json) fs.writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
const cell = (v) => `${median(v).toPrecision(3)} (${Math.min(...v).toPrecision(3)} … ${Math.max(...v).toPrecision(3)})`;
for (const row of rows) process.stdout.write(`${row.build}, ${row.case}: prefill ${cell(row.prefill)}, decode ${cell(row.decode)} tok/s, n = ${row.decode.length}\n`);
