// Builds dist/: the page's and Node's JavaScript, their declarations, and the WebAssembly modules that are built already.
// usage: build.mjs [--tables]   --tables only writes src/generated
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');
const dist = join(here, 'dist');
const run = (program, ...args) => execFileSync(program, args, { cwd: here, stdio: 'inherit' });

run('python3', join(root, 'tools/tables.py'), 'ts', join(here, 'src/generated'));
if (process.argv.includes('--tables')) process.exit(0);

mkdirSync(dist, { recursive: true });
const { version } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'));
const common = { bundle: true, define: { VERSION: JSON.stringify(version) }, format: 'esm', target: 'es2022', minify: true, sourcemap: true, legalComments: 'none', logLevel: 'warning' };
await build({ ...common, entryPoints: { index: join(here, 'src/index.ts'), worker: join(here, 'src/worker_web.ts') }, outdir: dist, platform: 'browser' });
await build({ ...common, entryPoints: { node: join(here, 'src/node.ts'), node_worker: join(here, 'src/worker_node.ts') }, outdir: dist, platform: 'node', target: 'node20' });

const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc');
run(process.execPath, tsc, '--emitDeclarationOnly', '--declaration');
// The declarations keep the sources' extension, which those who use them do not have.
for (const file of readdirSync(dist, { recursive: true }).filter((name) => name.endsWith('.d.ts'))) {
  const path = join(dist, file);
  writeFileSync(path, readFileSync(path, 'utf8').replace(/(['"]\.[^'"]*)\.ts(['"])/g, '$1.js$2'));
}

const modules = [];
for (const name of ['simd', 'relaxed', 'simd-threads', 'relaxed-threads']) {
  for (const file of [`subbyte-${name}.wasm`, `subbyte-quantizer-${name}.wasm`]) {
    const built = join(root, process.env.SUBBYTE_BUILD ?? 'build', name.replace('simd', 'relaxed'), file);  // one build makes both
    const copy = join(dist, file);
    if (existsSync(built)) copyFileSync(built, copy);
    else rmSync(copy, { force: true });
    // The quantiser's is fetched for quantising alone.
    if (existsSync(copy) && !file.includes('quantizer')) modules.push(copy);
  }
}
run(process.execPath, join(root, 'tools/size_report.mjs'), join(dist, 'index.js'), join(dist, 'worker.js'), ...modules);
