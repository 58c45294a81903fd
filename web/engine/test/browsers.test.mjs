// The package in the three browsers. Run with: node --test web/engine/test/browsers.test.mjs
// SUBBYTE_BROWSERS=chromium,webkit limits it; a browser that is not here is a counted skip, and a failure where CI is set.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { openHarness } from '../../harness/backend.mjs';
import { browserNames } from '../../harness/browser.mjs';
import { BrowserMissing } from '../../harness/program.mjs';
import { cases } from './cases.mjs';
import { calibration, makeQuantised, OPTIONS } from './quantised.mjs';
import { testServer } from './server.mjs';

const quantised = await makeQuantised();
after(() => quantised.remove());
const made = { options: OPTIONS, text: await calibration() };
const wanted = process.env.SUBBYTE_BROWSERS?.split(',') ?? browserNames;

for (const browser of wanted) {
  for (const isolation of browser === 'chromium' ? [true, false] : [true]) {
    test(`${browser}${isolation ? '' : ' without isolation'}`, async (t) => {
      let page;
      const { mounts, ...serverOptions } = testServer(quantised.folder);
      try {
        page = await openHarness(browser, { mounts, serverOptions: { ...serverOptions, isolation } });
      } catch (error) {
        if (error instanceof BrowserMissing && !process.env.CI) return t.skip(error.message);
        throw error;
      }
      try {
        for (const name of Object.keys(cases)) {
          await t.test(name, { timeout: 120_000 }, async () => {
            const problems = await page.browser.evaluate(
              async (which, madeWith) => {
                const { runCase } = await import('/cases/cases.mjs');
                return runCase(which, { Engine: window.SubbyteEngine, base: `${location.origin}/`, isPage: true, made: madeWith });
              },
              name,
              made,
            );
            assert.deepEqual(problems, []);
          });
        }
      } finally {
        await page.close();
      }
    });
  }
}
