// src/gpu.ts alone: in Node over Dawn, and in the browsers that have WebGPU. Run with: node --test web/engine/test/gpu.test.mjs
// A browser or driver that is not here is a counted skip, and a failure where CI is set.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { build } from 'esbuild';

import { openHarness } from '../../harness/backend.mjs';
import { GpuMissing, prepareNodeGpu } from '../../harness/gpu.mjs';
import { BrowserMissing } from '../../harness/program.mjs';
import { run } from './case_tools.mjs';
import { gpuCases } from './gpu_cases.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const built = await mkdtemp(join(tmpdir(), 'subbyte-gpu-'));
after(() => rm(built, { recursive: true }));
await build({ entryPoints: [join(here, '../src/gpu.ts')], bundle: true, format: 'esm', outfile: join(built, 'gpu.js') });
const { Gpu } = await import(pathToFileURL(join(built, 'gpu.js')).href);

/** In CI everything must be there; elsewhere what is missing is a counted skip. */
function missing(t, error) {
  if (!(error instanceof BrowserMissing || error instanceof GpuMissing) || process.env.CI) throw error;
  t.skip(error.message);
}

test('node', async (t) => {
  try {
    prepareNodeGpu({ always: true });
  } catch (error) {
    return missing(t, error);
  }
  const { create } = await import('webgpu');
  for (const isShared of [false, true]) {
    for (const name of Object.keys(gpuCases)) {
      await t.test(`${name}${isShared ? ', shared memory' : ''}`, { timeout: 60_000 }, async () => {
        assert.deepEqual(await run(gpuCases[name], { Gpu, find: async () => create([]), isShared }), []);
      });
    }
  }
});

for (const browser of ['chromium', 'firefox']) {
  test(browser, async (t) => {
    let page;
    try {
      page = await openHarness(browser, { mounts: { '/gpu/': built, '/cases/': here }, browserOptions: { gpu: true } });
    } catch (error) {
      return missing(t, error);
    }
    try {
      for (const isShared of [false, true]) {
        for (const name of Object.keys(gpuCases)) {
          await t.test(`${name}${isShared ? ', shared memory' : ''}`, { timeout: 60_000 }, async () => {
            const problems = await page.browser.evaluate(
              async (which, shared) => {
                const [{ Gpu: Built }, { gpuCases: cases }, { run: runCase }] = await Promise.all([
                  import('/gpu/gpu.js'),
                  import('/cases/gpu_cases.mjs'),
                  import('/cases/case_tools.mjs'),
                ]);
                return runCase(cases[which], { Gpu: Built, find: async () => navigator.gpu, isShared: shared });
              },
              name,
              isShared,
            );
            assert.deepEqual(problems, []);
          });
        }
      }
      if (browser === 'chromium') await t.test('the GPU\'s process dies', { timeout: 60_000 }, () => crash(page.browser));
    } finally {
      await page.close();
    }
  });
}

/** Reads over and over while the process that has the GPU is ended from outside. */
async function crash(browser) {
  await browser.evaluate(async () => {
    const [{ Gpu: Built }, { Caller }] = await Promise.all([import('/gpu/gpu.js'), import('/cases/gpu_cases.mjs')]);
    const gpu = new Built();
    await gpu.open(async () => navigator.gpu);
    const core = new Caller(gpu, false);
    const x = core.buffer([1, 2, 3, 4]);
    const read = async () => {
      core.submit([3, x, 0, 16, 0]);
      return String(await core.came(0, 4));
    };
    window.first = await read();
    window.lost = (async () => {
      while ((await read()) === window.first);
      return core.text('gpu_error');
    })();
  });
  assert.equal(await browser.evaluate(() => window.first), '1,2,3,4');
  const devtools = await browser.page.browser().target().createCDPSession();
  await devtools.send('Browser.crashGpuProcess').catch(() => {}); // it dies before it answers
  assert.match(await browser.evaluate(() => window.lost), /^lost: ./);
}
