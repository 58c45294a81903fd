// The package in Node. Run with: node --test web/engine/test/node.test.mjs
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { nodeEngine } from '../../harness/backend.mjs';
import { cases, runCase } from './cases.mjs';
import { startTestServer } from './server.mjs';

const { Engine } = await nodeEngine();
const server = await startTestServer();
after(() => server.close());

for (const name of Object.keys(cases)) {
  test(`node: ${name}`, { timeout: 120_000 }, async () => {
    assert.deepEqual(await runCase(name, { Engine, base: server.url, isPage: false }), []);
  });
}
