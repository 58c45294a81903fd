import { setFlagsFromString } from 'node:v8';

import { prepareNodeGpu } from './gpu.mjs';

/** The package as built, for Node, and a driver for `device` "webgpu". Node 20 has relaxed SIMD behind a flag, which may be set as long as nothing has been compiled. */
export async function nodeEngine({ device } = {}) {
  if (device === 'webgpu') prepareNodeGpu();
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 22) setFlagsFromString('--experimental-wasm-relaxed-simd');
  return import('../engine/dist/node.js');
}
