#!/usr/bin/env node
// `./dev bench ops` and `./dev bench compare`: op cases timed on one build, or on two in turn.
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { median } from '../peers/statistics.mjs';
import { hostOf, hosts, open } from './contender.mjs';

const usage = `usage: ops.mjs FOLDER [options]      times the op cases of a build
       ops.mjs FOLDER_A FOLDER_B [options]   in turn, and prints B : A
  --op NAME          only this op (matmul)
  --case TEXT        only cases whose text has this; may repeat
  --host ${hosts.join('|')}   where a WebAssembly build runs; default chromium
  --threads N        native only; default 1
  --samples N        default 7
  --ms N             of a sample, at least; default 50
  --json FILE        rows {op, case, threads, host, isa, unit, median, min, max, share_of_peak, nmse, allowed}`;

let values;
let folders;
try {
  ({ values, positionals: folders } = parseArgs({
    allowPositionals: true,
    options: {
      op: { type: 'string' }, case: { type: 'string', multiple: true }, host: { type: 'string' }, threads: { type: 'string', default: '1' },
      samples: { type: 'string', default: '7' }, ms: { type: 'string', default: '50' }, json: { type: 'string' },
    },
  }));
} catch (error) {
  process.stderr.write(`${error.message}\n${usage}\n`);
  process.exit(2);
}
if (folders.length < 1 || folders.length > 2) {
  process.stderr.write(`${usage}\n`);
  process.exit(2);
}

const threads = Number(values.threads);
const round = (x) => Number(x.toPrecision(4));
const summed = (samples) => ({ median: round(median(samples)), min: round(Math.min(...samples)), max: round(Math.max(...samples)) });

/** One thread is timed by its process's CPU time where the host tells it, because the machine may be shared; all else by the wall. */
const msOf = (answer) => (threads === 1 && answer.cpu_ms > 0 ? answer.cpu_ms : answer.ms);

/** What a sample says: weights (one token) or multiply-adds (more) a second, in 10⁹, and how much of the machine's best that is. */
function rate(test, answer, peak) {
  const perSecond = answer.macs / msOf(answer) / 1e6;
  const bytesPerSecond = answer.weight_bytes / msOf(answer) / 1e6;
  return test.n_tokens === 1
    ? { unit: 'Gweights/s', value: perSecond, share: bytesPerSecond / peak.read_gb_s, of: 'read' }
    : { unit: 'GMAC/s', value: perSecond, share: perSecond / peak.dot_gmac_s, of: 'dot' };
}

/** Cases chosen on the command line, as [index, case]. */
async function chosen(contender) {
  const { cases } = await contender.ask('list');
  const wanted = (test) => (!values.op || test.op === values.op) && (!values.case || values.case.some((text) => test.text.includes(text)));
  const list = [...cases.entries()].filter(([, test]) => wanted(test));
  if (!list.length) throw new Error(`no case has op "${values.op ?? 'any'}" and one of ${JSON.stringify(values.case ?? ['any text'])}`);
  return list;
}

/** Prepares, checks and warms up: WebAssembly first runs as a quick translation, and is made fast while it runs. */
const warm = async (contender, index, host) => {
  for (let i = 0; i < (host === 'native' ? 1 : 8); i++) await ask(contender, index);
};
const ask = (contender, index) => contender.ask(`run ${index} ${threads} ${values.ms}`);

async function times(folder, host) {
  const contender = await open(folder, host);
  let failed = 0;
  const rows = [];
  try {
    const peak = await contender.ask('probe');
    console.log(`${host}, ${peak.isa}, ${threads} thread${threads > 1 ? 's' : ''}: reads ${peak.read_gb_s.toFixed(1)} GB/s, dots ${peak.dot_gmac_s.toFixed(0)} GMAC/s (one thread); ${threads === 1 && ['native', 'node', 'chromium'].includes(host) ? 'CPU' : 'wall'} time`);
    for (const [index, test] of await chosen(contender)) {
      const rates = [];
      try {
        await warm(contender, index, host);
        for (let i = 0; i < Number(values.samples); i++) rates.push(rate(test, await ask(contender, index), peak));
      } catch (error) {
        failed++;
        console.log(`${test.op} ${test.text}: ${error.message}`);
        continue;
      }
      const { nmse, allowed } = await ask(contender, index);
      const figure = summed(rates.map((r) => r.value));
      const share = median(rates.map((r) => r.share));
      const { unit, of } = rates[0];
      console.log(`${test.op} ${test.text.padEnd(44)} ${figure.median.toFixed(2).padStart(8)} ${unit.padEnd(10)} (${figure.min.toFixed(2)}…${figure.max.toFixed(2)})  ${(100 * share).toFixed(0).padStart(3)} % of the ${of} peak, error ${nmse.toExponential(1)}`);
      rows.push({ op: test.op, case: test.text, threads, host, isa: peak.isa, unit, ...figure, share_of_peak: round(share), peak: of, nmse, allowed });
    }
  } finally {
    await contender.close();
  }
  return { rows, failed };
}

async function compares(folderA, folderB) {
  const hosting = [folderA, folderB].map((folder) => values.host ?? hostOf(folder));
  const sides = [];
  const rows = [];
  let failed = 0;
  try {
    for (const [side, folder] of [folderA, folderB].entries()) sides.push(await open(folder, hosting[side]));
    const lists = [];
    for (const side of sides) lists.push(new Map((await chosen(side)).map(([index, test]) => [`${test.op} ${test.text}`, index])));
    for (const [name, indexA] of lists[0]) {
      const indexB = lists[1].get(name);
      if (indexB === undefined) continue;
      const ms = [[], []];
      try {
        for (const [side, index] of [indexA, indexB].entries()) await warm(sides[side], index, hosting[side]);
        for (let i = 0; i < Number(values.samples); i++) {
          const took = [msOf(await ask(sides[0], indexA)), msOf(await ask(sides[1], indexB))];
          took.forEach((t, side) => ms[side].push(t));
        }
      } catch (error) {
        failed++;
        console.log(`${name}: ${error.message}`);
        continue;
      }
      // The median of the ratios within a round: other load on the machine hits both alike.
      const ratio = summed(ms[0].map((t, i) => t / ms[1][i]));
      console.log(`${name.padEnd(52)} ${ratio.median.toFixed(2).padStart(6)}× (${ratio.min.toFixed(2)}…${ratio.max.toFixed(2)})   ${median(ms[0]).toFixed(4)} → ${median(ms[1]).toFixed(4)} ms`);
      rows.push({ case: name, threads, times_faster: ratio, ms_a: round(median(ms[0])), ms_b: round(median(ms[1])) });
    }
    if (!rows.length && !failed) throw new Error('the two builds have no case in common');
  } finally {
    for (const side of sides) await side.close();
  }
  return { rows, failed };
}

try {
  const { rows, failed } = folders.length === 2 ? await compares(...folders) : await times(folders[0], values.host ?? hostOf(folders[0]));
  if (values.json) writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
  process.exitCode = failed ? 1 : 0;
} catch (error) {
  process.stderr.write(`bench: ${error.message}\n`);
  process.exitCode = 1;
}
