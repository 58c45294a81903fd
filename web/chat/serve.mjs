#!/usr/bin/env node
// Serves the chat page with the headers that threads need, the models of the user's cache under /models/ and their list at /models.json.
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { serve } from '../harness/serve.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const DEFAULT = 'SmolLM2-135M-Instruct.Q4_1.gguf';
const PORTS = 20; // how many are tried, from the wanted one on

export const chatDist = join(here, 'dist');

export function modelsFolder() {
  return join(process.env.SUBBYTE_CACHE || join(homedir(), '.cache/subbyte'), 'models');
}

/** [{name, url, bytes, note}] of the GGUF files in `folder`: the default model first, then SmolLM2, then by name. */
export function listModels(folder) {
  let files;
  try {
    files = readdirSync(folder).filter((name) => name.toLowerCase().endsWith('.gguf'));
  } catch {
    return []; // no cache yet: the page takes files and addresses all the same
  }
  const rank = (name) => (name === DEFAULT ? 0 : name.startsWith('SmolLM2') ? 1 : 2);
  return files
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map((file) => {
      const [, name, dtype] = /^(.*?)(?:[.-]((?:I?Q\d\w*|F16|F32|BF16)))?\.gguf$/i.exec(file);
      const note = file === DEFAULT ? 'the default' : '';
      return { name: dtype ? `${name} ${dtype.toUpperCase()}` : name, url: `models/${encodeURIComponent(file)}`, bytes: statSync(join(folder, file)).size, note };
    });
}

/** The page's server; `more` goes to the harness's serve(). Fails with EADDRINUSE when `port` is taken. */
export function serveChat({ models = modelsFolder(), mounts = {}, routes = {}, ...more } = {}) {
  return serve({
    ...more,
    mounts: { '/': chatDist, '/models/': models, ...mounts },
    routes: { '/models.json': () => listModels(models), ...routes }, // asked anew each time: models come and go
  });
}

async function main() {
  const { values } = parseArgs({
    options: { port: { type: 'string', default: '8787' }, 'no-isolation': { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
  });
  if (values.help) return console.log('usage: serve.mjs [--port N] [--no-isolation]\nServes the chat page; if port N (default 8787) is taken, the next free one.');
  const wanted = Number(values.port);
  if (!Number.isInteger(wanted) || wanted < 0 || wanted > 65535) throw new Error(`--port is ${values.port}; it must be a whole number from 0 to 65535`);
  mkdirSync(modelsFolder(), { recursive: true });
  for (let port = wanted; ; port++) {
    try {
      const server = await serveChat({ port, isolation: !values['no-isolation'] });
      console.log(`subbyte chat: ${server.url}`);
      for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => void server.close().then(() => process.exit(0)));
      return;
    } catch (error) {
      if (error.code !== 'EADDRINUSE' || port >= wanted + PORTS) throw error;
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
