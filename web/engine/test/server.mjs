// The server that the package's tests load from: one small model under several kinds of weather.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { serve } from '../../harness/serve.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const golden = join(here, '../../../tests/golden');
const weather = ['plain', 'nolength', 'noranges', 'cut', 'cutnoranges', 'alwayscut', 'busy', 'refused'];

/** `more` mounts for pages. */
export const testServer = (more = {}) => ({
  mounts: { ...Object.fromEntries(weather.map((kind) => [`/${kind}/`, golden])), '/cases/': here, ...more },
  routes: { '/requests': ({ requests }) => requests.filter(({ path }) => path !== '/requests') },
  fault({ path, count }) {
    const isWeights = path.endsWith('model.safetensors');
    switch (path.split('/')[1]) {
      case 'nolength':
        return { noLength: true };
      case 'noranges':
        return { noRanges: true };
      case 'cut': // twice, further on each time
        return isWeights && count <= 2 ? { cutAfter: 150_000 } : undefined;
      case 'cutnoranges':
        return isWeights ? { cutAfter: 150_000, noRanges: true } : undefined;
      case 'alwayscut':
        return isWeights ? { cutAfter: count === 1 ? 150_000 : 0 } : undefined;
      case 'busy': // once
        return count === 1 ? { status: 503 } : undefined;
      case 'refused':
        return { status: 403 };
    }
  },
});

export const startTestServer = (more) => serve(testServer(more));
