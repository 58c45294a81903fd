import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { in_page } from './in_page.mjs';

export default in_page({
  name: 'subbyte-wasm', is_ours: true, adapter: 'subbyte.page.mjs',
  folders: { '/subbyte/': path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../web/engine/dist/') },
  downloads: () => ['/subbyte/index.js', '/subbyte/worker.js', '/subbyte/subbyte-relaxed-threads.wasm'],
  built_by: './dev web',
});
