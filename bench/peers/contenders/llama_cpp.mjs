import path from 'node:path';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { start_process } from './process.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

export default {
  name: 'llama.cpp', is_ours: false,
  missing: () => (existsSync(path.join(here, '../node_modules/@node-llama-cpp/linux-x64')) ? null : 'node-llama-cpp is not installed: npm ci in bench/peers'),
  payload: () => null,
  async prepare({ file, threads, context, proof }) {
    const start = () => start_process(process.execPath, [path.join(here, 'llama_cpp.process.mjs'), file, threads, context], proof);
    return { start, is_kept: true, async close() {} };
  },
};
