#!/usr/bin/env node
// How long a page takes from its opening to the first token, for visitors who come back: builds of web/engine/dist in turn, a browser process
// of its own each time. Each build has a profile; its first visit fills the storage and must answer as the first build does.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { drop_profile, fresh_profile, open_page, serve } from './browser.mjs';
import { median } from './statistics.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { builds: { ...text, default: path.join(here, '../../web/engine/dist') }, rounds: { ...text, default: '5' }, threads: { ...text, default: '2' }, json: text },
});
const [model] = positionals;
if (!model || !fs.existsSync(model)) {
  process.stderr.write('usage: starts.mjs MODEL [--builds DIST,DIST…] [--rounds N] [--threads N] [--json FILE]   (MODEL: a GGUF or a folder)\n');
  process.exit(2);
}

const proof = { prompt: 'The capital of France is', n: 8 };
const isFolder = fs.statSync(model).isDirectory();
const builds = [];
try {
  for (const dist of values.builds.split(',')) {
    const server = await serve({ '/adapters/': path.join(here, 'contenders'), '/models/': path.dirname(path.resolve(model)), '/subbyte/': dist });
    const page = {
      base: server.base, adapter: '/adapters/subbyte.page.mjs', model: `/models/${path.basename(model)}${isFolder ? '/' : ''}`,
      threads: Number(values.threads), context: 1024, profile: fresh_profile(), proof,
    };
    const build = { dist, server, page, load_ms: [], first_token_ms: [] };
    builds.push(build);
    const first = await open_page(page);
    await first.stop();
    build.answer = first.text;
    if (build.answer !== builds[0].answer) throw new Error(`${dist} answers ${JSON.stringify(build.answer)}, not ${JSON.stringify(builds[0].answer)}`);
  }
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { page, load_ms, first_token_ms } of builds) {
      const visit = await open_page(page);
      load_ms.push(visit.load_ms);
      first_token_ms.push(visit.first_token_ms);
      await visit.stop();
    }
  }
} finally {
  for (const { server, page } of builds) {
    server.close();
    drop_profile(page.profile);
  }
}
const spread = (ms) => ({ median: Math.round(median(ms)), least: Math.round(Math.min(...ms)), most: Math.round(Math.max(...ms)) });
const rows = builds.map(({ dist, load_ms, first_token_ms }) => ({ dist, n: load_ms.length, load_ms: spread(load_ms), first_token_ms: spread(first_token_ms) }));
if (values.json) fs.writeFileSync(values.json, `${JSON.stringify(rows, null, 1)}\n`);
for (const { dist, n, load_ms, first_token_ms } of rows) {
  const cell = ({ median: m, least, most }) => `${m} (${least} … ${most})`;
  process.stdout.write(`${dist}: load ${cell(load_ms)} ms, first token ${cell(first_token_ms)} ms, n = ${n}\n`);
}
process.exit(0);
