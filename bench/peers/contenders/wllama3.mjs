import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { in_page } from './in_page.mjs';

export default in_page({
  name: 'wllama-3.8.1', adapter: 'wllama3.page.mjs',
  folders: { '/wllama/': path.join(path.dirname(fileURLToPath(import.meta.url)), '../node_modules/wllama3/esm/') },
  downloads: () => ['/wllama/index.min.js', '/wllama/wasm/wllama.wasm'],
  built_by: 'npm ci in bench/peers',
});
