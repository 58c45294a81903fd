// Builds dist/: the page in one script and one style sheet, and beside it the engine's worker and WebAssembly modules as they were built.
import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const engine = join(here, '../engine/dist');
const dist = join(here, 'dist');

mkdirSync(dist, { recursive: true });
const common = { bundle: true, minify: true, sourcemap: true, legalComments: 'none', logLevel: 'warning' };
await build({ ...common, entryPoints: [join(here, 'src/app.ts')], outfile: join(dist, 'app.js'), format: 'esm', target: 'es2022' });
await build({ ...common, entryPoints: [join(here, 'src/style.css')], outfile: join(dist, 'style.css'), sourcemap: false, target: ['chrome114', 'firefox128', 'safari17'] });
copyFileSync(join(here, 'src/index.html'), join(dist, 'index.html'));

const isPart = (name) => name === 'worker.js' || name.endsWith('.wasm');
for (const old of readdirSync(dist).filter(isPart)) rmSync(join(dist, old));
const parts = readdirSync(engine).filter(isPart);
for (const name of parts) copyFileSync(join(engine, name), join(dist, name));
if (!parts.some((name) => name.endsWith('.wasm'))) console.warn('chat: web/engine/dist has no WebAssembly module yet; build the engine first');
