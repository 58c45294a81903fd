// The server that the package's tests load from: small models under several kinds of weather.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { serve } from '../../harness/serve.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const golden = join(here, '../../../tests/golden');
const weather = ['plain', 'nolength', 'noranges', 'cut', 'cutnoranges', 'alwayscut', 'busy', 'refused', 'held', 'stuck', 'damaged', 'damagedrefinement'];

/** `quantised`: the folder of makeQuantised(), which stands under /WEATHER/quantised/. */
export function testServer(quantised) {
  let release = () => {};
  let nStuck = 0;
  const released = new Promise((resolve) => (release = resolve));
  const mounts = Object.fromEntries(weather.flatMap((kind) => [[`/${kind}/`, golden], [`/${kind}/quantised/`, quantised]]));
  return {
    mounts: { ...mounts, '/cases/': here },
    routes: {
      '/requests': ({ requests }) => requests.filter(({ path }) => path !== '/requests'),
      '/release': () => release(),
      '/stuck': () => nStuck,
    },
    fault({ path, count, method }) {
      const isWeights = path.endsWith('.safetensors');
      const cutAfter = path.endsWith('model.safetensors') ? 150_000 : 10_000;
      switch (path.split('/')[1]) {
        case 'nolength':
          return { noLength: true };
        case 'noranges':
          return { noRanges: true };
        case 'cut': // twice, further on each time
          return isWeights && count <= 2 ? { cutAfter } : undefined;
        case 'cutnoranges':
          return isWeights ? { cutAfter, noRanges: true } : undefined;
        case 'alwayscut':
          return isWeights ? { cutAfter: count === 1 ? cutAfter : 0 } : undefined;
        case 'busy': // once
          return count === 1 ? { status: 503 } : undefined;
        case 'refused':
          return { status: 403 };
        case 'held': // until /release is asked for
          return path.includes('refine-') ? { until: released } : undefined;
        case 'stuck': // until the client gives up
          nStuck += isWeights;
          return isWeights ? { until: new Promise(() => {}) } : undefined;
        case 'damaged': // the first time: a HEAD, then the bytes
          return path.includes('base-') && method === 'GET' && count <= 2 ? { flipAt: 20_000 } : undefined;
        case 'damagedrefinement':
          return path.includes('refine-') && method === 'GET' && count <= 2 ? { flipAt: 10_000 } : undefined;
      }
    },
  };
}

export const startTestServer = (quantised) => serve(testServer(quantised));
