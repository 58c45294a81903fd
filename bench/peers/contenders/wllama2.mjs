import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { in_page } from './in_page.mjs';

export default in_page({
  name: 'wllama-2.4.0', adapter: 'wllama2.page.mjs',
  folders: { '/wllama/': path.join(path.dirname(fileURLToPath(import.meta.url)), '../node_modules/wllama2/esm/') },
  downloads: () => ['/wllama/index.min.js', '/wllama/multi-thread/wllama.wasm'],
  built_by: 'npm ci in bench/peers',
});
