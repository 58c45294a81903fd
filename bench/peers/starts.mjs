#!/usr/bin/env node
// How long a page takes from its opening to the first token, for visitors who come back: builds of web/engine/dist in turn, a browser process
// of its own each time. Each build has a profile, whose first visit fills the storage; all must answer alike. With --prompt N the page then
// reads so many tokens, and what its renderer held at most is told too.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { in_page } from './contenders/in_page.mjs';
import { spread } from './statistics.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { builds: { ...text, default: path.join(here, '../../web/engine/dist') }, rounds: { ...text, default: '5' }, threads: { ...text, default: '2' }, prompt: { ...text, default: '0' }, json: text },
});
const [model] = positionals;
if (!model || !fs.existsSync(model)) {
  process.stderr.write('usage: starts.mjs MODEL [--builds DIST,DIST…] [--rounds N] [--threads N] [--prompt N] [--json FILE]   (MODEL: a GGUF or a folder)\n');
  process.exit(2);
}

const ids = Array.from({ length: Number(values.prompt) }, (_, i) => 100 + ((i * 37) % 900));
const proof = { prompt: 'The capital of France is', n: 8 };
const builds = [];
try {
  for (const dist of values.builds.split(',')) {
    const contender = in_page({ name: dist, adapter: 'subbyte.page.mjs', folders: { '/subbyte/': dist } });
    builds.push({ dist, arena: await contender.prepare({ file: path.resolve(model), threads: Number(values.threads), context: 1024, proof }), visits: [] });
  }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { dist, arena, visits } of builds) {
      const visit = await arena.start();
      if (ids.length) {
        await visit.complete({ ids }, 8);
        visit.peak = visit.peak_mib();
      }
      await visit.stop();
      const { text: expected } = builds[0].visits[0] ?? visit;
      if (visit.text !== expected) throw new Error(`${dist} answers ${JSON.stringify(visit.text)}, not ${JSON.stringify(expected)}`);
      visits.push(visit);
    }
  }
} finally {
  for (const { arena } of builds) await arena.close();
}
const rows = builds.map(({ dist, visits }) => ({
  dist, n: visits.length, load_ms: spread(visits.map((v) => v.load_ms)), first_token_ms: spread(visits.map((v) => v.first_token_ms)),
  peak_mib: ids.length ? spread(visits.map((v) => v.peak)) : undefined,
}));
if (values.json) fs.writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
for (const { dist, n, load_ms, first_token_ms, peak_mib } of rows) {
  const cell = ({ median: m, least, most }) => `${m} (${least} … ${most})`;
  process.stdout.write(`${dist}: load ${cell(load_ms)} ms, first token ${cell(first_token_ms)} ms${peak_mib ? `, at most ${cell(peak_mib)} MiB` : ''}, n = ${n}\n`);
}
process.exit(0);
