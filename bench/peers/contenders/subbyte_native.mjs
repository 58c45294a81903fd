import path from 'node:path';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { start_process } from './process.mjs';

export const build = process.env.SUBBYTE_BUILD ?? path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../build');
export const program = path.join(build, 'release/apps/cli/subbyte');

export default {
  name: 'subbyte-native', is_ours: true,
  missing: () => (existsSync(program) ? null : 'the command line is not built: ./dev build'),
  payload: () => null,
  async prepare({ file, threads, context, proof }) {
    const start = () => start_process(program, ['bench', file, '--threads', threads, '--context', context, '--requests'], proof);
    return { start, is_kept: true, async close() {} };
  },
};
