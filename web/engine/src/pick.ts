// Which build runs here, and why not a better one. Asks the engine itself with tiny modules instead of looking at names and versions.
import { failure } from './errors.ts';
import type { Build } from './types.ts';

// (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)), in bytes
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
// (… i32.const 1 i8x16.splat i32.const 2 i8x16.splat i16x8.relaxed_dot_i8x16_i7x16_s): the final opcode of the instruction we need
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 146, 2, 11];

export interface Surroundings {
  isNode: boolean;
  crossOriginIsolated: boolean;
  hardwareThreads: number;
}

export interface Pick {
  build: Build;
  buildWhy: string[];
  threads: number;
  threadsWhy: string;
  relaxedSimd: boolean;
}

const ON_GPU = 'the GPU computes: more threads would have nothing to do';

const hasThreads = (build: Build) => build.endsWith('-threads');
const runs = (bytes: number[]) => WebAssembly.validate(new Uint8Array(bytes));

/** `how` such a number of threads came about. */
export function pick(here: Surroundings, wanted: 'auto' | Build, threads: number, isOnGpu: boolean, how = 'asked for'): Pick {
  if (typeof WebAssembly !== 'object') throw failure('kWasmUnsupported', { why: 'WebAssembly is switched off' });
  if (!runs(SIMD)) throw failure('kWasmUnsupported', { why: 'it has no WebAssembly SIMD' });
  const relaxedSimd = runs(RELAXED);
  const whyNotRelaxed = here.isNode
    ? 'relaxed SIMD is off: start Node with --experimental-wasm-relaxed-simd'
    : 'this browser has no WebAssembly relaxed SIMD';
  let whyNotThreads = '';
  if (typeof SharedArrayBuffer === 'undefined' || !here.crossOriginIsolated) {
    whyNotThreads = here.crossOriginIsolated
      ? 'this browser has no SharedArrayBuffer'
      : 'the page is not cross-origin isolated: serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp';
  }

  const buildWhy = [...(relaxedSimd ? [] : [whyNotRelaxed]), ...(whyNotThreads ? [whyNotThreads] : [])];
  const alone: Build = relaxedSimd ? 'relaxed' : 'simd';
  const best: Build = whyNotThreads ? alone : `${alone}-threads`;
  let build = best;
  if (wanted !== 'auto') {
    if (wanted.startsWith('relaxed') && !relaxedSimd) throw failure('kWasmUnsupported', { why: whyNotRelaxed });
    if (hasThreads(wanted) && whyNotThreads) throw failure('kWasmUnsupported', { why: whyNotThreads });
    if (wanted !== best) buildWhy.unshift(`build ${wanted} was asked for`);
    build = wanted;
  } else if (hasThreads(best) && (threads === 1 || (isOnGpu && threads === 0))) {
    build = alone;
    buildWhy.unshift(threads === 1 ? `one thread was ${how}` : ON_GPU);
  }
  const whyOne = whyNotThreads || (isOnGpu ? ON_GPU : '');
  return { build, buildWhy, relaxedSimd, ...countThreads(here, build, threads, whyOne, how) };
}

// Above four, the browser's count is usually hyper-threads and efficiency cores, which hold back threads that wait for each other.
const few = 4;
const most = 8;

function countThreads(here: Surroundings, build: Build, wanted: number, whyOne: string, how: string): { threads: number; threadsWhy: string } {
  if (!hasThreads(build)) {
    return { threads: 1, threadsWhy: wanted === 1 ? `one thread was ${how}` : whyOne || `build ${build} has one thread` };
  }
  if (wanted > 0) return { threads: wanted, threadsWhy: `${wanted} threads were ${how}` };
  const n = here.hardwareThreads;
  const threads = n <= few ? n : Math.min(most, Math.ceil(n / 2));
  return { threads, threadsWhy: threads === n ? `one for each of ${n} cores` : `${threads} of ${n} logical cores` };
}
