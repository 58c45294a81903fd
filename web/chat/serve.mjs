#!/usr/bin/env node
// Serves the chat page with the headers that threads need, the models of the user's cache under /models/ and their list at /models.json; on
// the first start it also quantises the default model, and says at /quantising.json how far that is.
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { serve } from '../harness/serve.mjs';
import { defaultModel, isWhole, QUANTISED, SOURCE } from './default_model.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');
const PORTS = 20; // how many are tried, from the wanted one on

export const chatDist = join(here, 'dist');

export function modelsFolder() {
  return join(process.env.SUBBYTE_CACHE || join(homedir(), '.cache/subbyte'), 'models');
}

// A folder's address has a part of its index's sum in it: the browser keeps files by address, and a folder made anew is another one.
const VERSION = /^(\/models\/[^/]+)\/v-[0-9a-f]+\//;

/** [{name, url, bytes, note}] of the GGUF files and quantised folders in `folder`: the default model first, then SmolLM2, then by name. */
export function listModels(folder) {
  let entries;
  try {
    entries = readdirSync(folder);
  } catch {
    return []; // no cache yet: the page takes files and addresses all the same
  }
  const rank = (name) => (name === QUANTISED ? 0 : name === SOURCE ? 1 : name.startsWith('SmolLM2') ? 2 : 3);
  return entries
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b))
    .map((entry) => (entry.toLowerCase().endsWith('.gguf') ? listedFile(folder, entry) : isWhole(join(folder, entry)) ? listedFolder(folder, entry) : null))
    .filter((entry) => entry !== null);
}

function listedFile(folder, file) {
  const [, name, dtype] = /^(.*?)(?:[.-]((?:I?Q\d\w*|F16|F32|BF16)))?\.gguf$/i.exec(file);
  return { name: dtype ? `${name} ${dtype.toUpperCase()}` : name, url: `models/${encodeURIComponent(file)}`, bytes: statSync(join(folder, file)).size, note: '' };
}

function listedFolder(folder, name) {
  if (name.endsWith('.partial')) return null;
  try {
    const { shards, index_sha256 } = JSON.parse(readFileSync(join(folder, name, 'subbyte.index.json'), 'utf8'));
    const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0);
    return { name, url: `models/${encodeURIComponent(name)}/v-${index_sha256.slice(0, 16)}/`, bytes, note: name === QUANTISED ? 'the default, quantised here' : 'quantised' };
  } catch {
    return null; // it is being written, or it is damaged
  }
}

/** The page's server; `quantising` is a FolderMaker, if there is one; `more` goes to the harness's serve(). Fails with EADDRINUSE when
 * `port` is taken. */
export function serveChat({ models = modelsFolder(), quantising = null, mounts = {}, routes = {}, ...more } = {}) {
  return serve({
    ...more,
    mounts: { '/': chatDist, '/models/': models, ...mounts },
    rewrite: (path) => path.replace(VERSION, '$1/'),
    routes: {
      '/models.json': () => listModels(models), // asked anew each time: models come and go
      '/quantising.json': () => quantising?.status() ?? { state: 'none' },
      ...routes,
    },
  });
}

async function main() {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '8787' },
      'no-isolation': { type: 'boolean', default: false },
      cli: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    return console.log(
      'usage: serve.mjs [--port N] [--no-isolation] [--cli SUBBYTE]\n' +
        'Serves the chat page; if port N (default 8787) is taken, the next free one.\n' +
        'With --cli, the built command line, the default model is quantised on the first start while the page chats with its source.',
    );
  }
  const wanted = Number(values.port);
  if (!Number.isInteger(wanted) || wanted < 0 || wanted > 65535) throw new Error(`--port is ${values.port}; it must be a whole number from 0 to 65535`);
  const models = modelsFolder();
  mkdirSync(models, { recursive: true });
  const quantising = defaultModel({ models, cli: values.cli, data: join(root, 'data') });
  for (let port = wanted; ; port++) {
    try {
      const server = await serveChat({ port, isolation: !values['no-isolation'], quantising });
      quantising.start();
      console.log(`subbyte chat: ${server.url}`);
      for (const signal of ['SIGINT', 'SIGTERM']) {
        process.once(signal, () => {
          void Promise.all([quantising.stop(), server.close()]).then(() => process.exit(0));
        });
      }
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
