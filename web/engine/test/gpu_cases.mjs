// src/gpu.ts alone, without the core: what gpu.h promises, in Node and in pages. Each gets { Gpu, find, isShared, check }: `find` gives the
// machine's GPU, `isShared` says whether the memory that the functions read is shared between threads.

import { watchedGpu } from '../../harness/watched_gpu.mjs';
import { caught } from './case_tools.mjs';

const USE = { storage: 0, uniform: 1 };
const [DISPATCH, COPY, READ] = [1, 2, 3];
const N_SLOTS = 8;
const N_LARGEST = 4; // buffers of the largest size, at which a small driver gives up

/** What the core does with the functions: words and text in a memory of its own. */
export class Caller {
  constructor(gpu, isShared) {
    this.gpu = gpu;
    this.memory = new Uint8Array(isShared ? new SharedArrayBuffer(1 << 20) : new ArrayBuffer(1 << 20));
    this.sb = gpu.imports(() => this.memory);
    this.end = 4096; // bytes of it that are in use
  }
  put(bytes) {
    const at = this.end;
    this.memory.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength), at);
    this.end = Math.ceil((at + bytes.byteLength) / 16) * 16;
    return at;
  }
  text(name) {
    const length = this.sb[name](0, 4096);
    return new TextDecoder().decode(this.memory.slice(0, Math.min(length, 4096)));
  }
  pipeline(wgsl, call = 'gpu_pipeline') {
    const utf8 = new TextEncoder().encode(wgsl);
    return this.sb[call](this.put(utf8), utf8.length);
  }
  write(buffer, words, offset = 0) {
    const bytes = Uint32Array.from(words);
    this.sb.gpu_write(buffer, offset, this.put(bytes), bytes.byteLength);
  }
  buffer(words, use = USE.storage) {
    const buffer = this.sb.gpu_buffer(4 * words.length, use);
    this.write(buffer, words);
    return buffer;
  }
  bind(pipeline, ...bindings) {
    return this.sb.gpu_bind(pipeline, this.put(Uint32Array.from(bindings.flat())), bindings.length);
  }
  submit(...commands) {
    const words = Uint32Array.from(commands.flat());
    this.sb.gpu_submit(this.put(words), words.length);
  }
  take(slot, nWords) {
    const came = this.sb.gpu_take(slot, 0, 4 * nWords);
    return came === 1 ? [...new Uint32Array(this.memory.slice(0, 4 * nWords).buffer)] : came;
  }
  /** As the pump does it: again after each answer. */
  async came(slot, nWords) {
    for (;;) {
      const words = this.take(slot, nWords);
      if (words !== 0) return words;
      await this.gpu.answered();
    }
  }
}

export async function withGpu({ Gpu, find, isShared }, work) {
  const gpu = new Gpu();
  let device;
  await gpu.open(async () => watchedGpu(await find(), (opened) => (device = opened)));
  try {
    await work(new Caller(gpu, isShared), device);
  } finally {
    gpu.destroy();
  }
}

const TRIPLE_PLUS = `
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<uniform> add: vec4<u32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) at: vec3<u32>) { x[at.x] = 3u * x[at.x] + add.x; }`;

export const gpuCases = {
  async 'says what was opened'(t) {
    await withGpu(t, async (core, device) => {
      t.check.equal(core.sb.gpu_open(), 1);
      const info = JSON.parse(core.text('gpu_info'));
      for (const feature of info.features) t.check.ok(device.features.has(feature), feature);
      t.check.equal(info.limits.buffer, device.limits.maxBufferSize);
      t.check.ok(info.limits.binding >= 128 << 20 && info.limits.workgroup >= 16384 && info.limits.groups >= 65535, JSON.stringify(info.limits));
      t.check.equal(typeof info.packed_dot, 'boolean');
      const length = core.text('gpu_info').length;
      core.memory.fill(0, 0, 64);
      t.check.equal(core.sb.gpu_info(0, 10), length, 'its whole length, also where there is less room');
      t.check.equal(core.memory[10], 0);
    });
  },

  async 'without a GPU it says why'({ Gpu, check }) {
    for (const [find, why] of [
      [async () => ({ requestAdapter: async () => null }), 'no adapter'],
      [async () => { throw new Error('it is switched off'); }, 'it is switched off'],
      [async () => ({ requestAdapter: async () => ({ features: new Set(), limits: {}, requestDevice: async () => { throw new Error('too many devices'); } }) }), 'too many devices'],
    ]) {
      const gpu = new Gpu();
      const error = await caught(() => gpu.open(find));
      check.equal(error.code, 'kDeviceMissing');
      check.ok(error.message.includes(why), error.message);
      const core = new Caller(gpu, false);
      check.equal(core.sb.gpu_open(), 0);
      check.ok(JSON.parse(core.text('gpu_info')).why.includes(why), core.text('gpu_info'));
    }
  },

  async 'a list runs in order: dispatches, copies, reads'(t) {
    await withGpu(t, async (core) => {
      const pipeline = core.pipeline(TRIPLE_PLUS);
      const x = core.buffer(Array.from({ length: 8 }, (_, i) => i));
      const copy = core.sb.gpu_buffer(64, USE.storage);
      const bind = core.bind(pipeline, [x, 0, 32], [core.buffer([1, 0, 0, 0], USE.uniform), 0, 16]);
      const twice = [[DISPATCH, pipeline, bind, 2, 1, 1], [DISPATCH, pipeline, bind, 1, 1, 1]];
      core.submit(...twice, [COPY, x, 8, copy, 32, 16], [READ, x, 0, 32, 0], [DISPATCH, pipeline, bind, 2, 1, 1], [READ, x, 0, 8, 1], [READ, copy, 0, 64, 2]);
      const once = (v) => 3 * v + 1;
      const after = [0, 1, 2, 3, 4, 5, 6, 7].map((v, i) => (i < 4 ? once(once(v)) : once(v)));
      t.check.equal(String(await core.came(0, 8)), String(after));
      t.check.equal(String(await core.came(1, 2)), String(after.slice(0, 2).map(once)));
      t.check.equal(String(await core.came(2, 16)), String([...Array(8).fill(0), ...after.slice(2, 6), 0, 0, 0, 0]));
      t.check.equal(core.text('gpu_error'), '');
    });
  },

  async 'a write is what the memory held when it was made, and goes before the next submission'(t) {
    await withGpu(t, async (core) => {
      const x = core.sb.gpu_buffer(1024, USE.storage);
      core.write(x, [1, 2, 3, 4]);
      core.memory.fill(255, 4096, core.end); // of another use
      core.submit([READ, x, 0, 32, 0]);
      core.write(x, [7], 4);
      core.submit([READ, x, 0, 16, 1]);
      t.check.equal(String(await core.came(1, 4)), '1,7,3,4');
      t.check.equal(String(await core.came(0, 8)), '1,2,3,4,0,0,0,0', 'a new buffer is zero');
      t.check.equal(core.text('gpu_error'), '');
    });
  },

  async 'what is written is on its way until the GPU has taken it'(t) {
    await withGpu(t, async (core) => {
      t.check.equal(core.sb.gpu_writing(), 0);
      await core.gpu.written(); // nothing is on its way
      const x = core.sb.gpu_buffer(1 << 18, USE.storage);
      core.write(x, Array(1 << 14).fill(5));
      t.check.equal(core.sb.gpu_writing(), 1 << 16);
      core.write(x, Array(1 << 14).fill(6), 1 << 16);
      t.check.equal(core.sb.gpu_writing(), 1 << 17);
      while (core.sb.gpu_writing() > 0) await core.gpu.written();
      core.submit([READ, x, 65532, 8, 0]);
      t.check.equal(String(await core.came(0, 2)), '5,6');
      t.check.equal(core.text('gpu_error'), '');
    });
  },

  async 'of a lost device nothing is on its way'(t) {
    await withGpu(t, async (core, device) => {
      const x = core.sb.gpu_buffer(64, USE.storage);
      core.write(x, [1, 2, 3, 4]);
      t.check.equal(core.sb.gpu_writing(), 16);
      device.destroy();
      await core.gpu.written();
      t.check.equal(core.sb.gpu_writing(), 0);
      core.write(x, [1, 2, 3, 4]);
      while (core.sb.gpu_writing() > 0) await core.gpu.written();
    });
  },

  async 'bindings begin and end where they say'(t) {
    await withGpu(t, async (core) => {
      const pipeline = core.pipeline(`
        @group(0) @binding(0) var<storage, read> x: array<u32>;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(1) fn main() { y[0] = x[0]; y[1] = arrayLength(&x); }`);
      const x = core.buffer(Array.from({ length: 128 }, (_, i) => i));
      const y = core.sb.gpu_buffer(8, USE.storage);
      core.submit([DISPATCH, pipeline, core.bind(pipeline, [x, 256, 40], [y, 0, 8]), 1, 1, 1], [READ, y, 0, 8, 3]);
      t.check.equal(String(await core.came(3, 2)), '64,10');
      core.submit([DISPATCH, pipeline, core.bind(pipeline, [x, 256, 0], [y, 0, 0]), 1, 1, 1], [READ, y, 0, 8, 3]);
      t.check.equal(String(await core.came(3, 2)), '64,64', 'to the end of the buffer');
      t.check.equal(core.text('gpu_error'), '');
    });
  },

  async 'reads under way at a time, in all slots, over and over'(t) {
    await withGpu(t, async (core) => {
      const x = core.buffer(Array.from({ length: 1024 }, (_, i) => i));
      for (let round = 0; round < 4; round++) {
        const nWords = [4, 64, 4, 1][round];
        for (let slot = 0; slot < N_SLOTS; slot++) core.submit([READ, x, 256 * slot + 4 * round, 4 * nWords, slot]);
        for (let slot = N_SLOTS; slot-- > 0;) {
          const first = 64 * slot + round;
          t.check.equal(String(await core.came(slot, nWords)), String(Array.from({ length: nWords }, (_, i) => first + i)), `slot ${slot}, round ${round}`);
        }
      }
      await core.gpu.answered(); // nothing is under way
      t.check.ok(String(await caught(() => core.take(0, 1))).includes('slot 0'), 'an empty slot');
      core.submit([READ, x, 0, 16, 5]);
      t.check.ok(String(await caught(() => core.submit([READ, x, 0, 16, 5]))).includes('slot 5'), 'a slot that is taken');
      t.check.equal(String(await core.came(5, 2)), '0,1', 'the first read is not harmed');
    });
  },

  async 'numbers are used again, and none is everyone\'s'(t) {
    await withGpu(t, async (core) => {
      const first = core.sb.gpu_buffer(16, USE.storage);
      core.sb.gpu_buffer_free(first);
      t.check.equal(core.sb.gpu_buffer(16, USE.storage), first);
      core.sb.gpu_buffer_free(0);
      core.sb.gpu_bind_free(0);
      core.sb.gpu_buffer_free(first);
      t.check.ok(String(await caught(() => core.sb.gpu_buffer_free(first))).includes(`number ${first}`), 'what is gone');
      t.check.ok(String(await caught(() => core.submit([9, 0]))).includes('9'), 'an unknown command');
    });
  },

  async 'a pipeline that is not WGSL is told before its read comes, and harms nothing else'(t) {
    await withGpu(t, async (core) => {
      const good = core.pipeline(TRIPLE_PLUS);
      const x = core.buffer([5, 5, 5, 5]);
      const bind = core.bind(good, [x, 0, 16], [core.buffer([1, 0, 0, 0], USE.uniform), 0, 16]);
      const broken = core.pipeline('@compute @workgroup_size(1) fn main() { nonsense(); }');
      t.check.ok(broken > 0, 'it has a number');
      core.submit([DISPATCH, broken, core.bind(broken, [x, 0, 16]), 1, 1, 1], [READ, x, 0, 16, 0]);
      await core.came(0, 4);
      const error = core.text('gpu_error');
      t.check.ok(/^invalid: ./.test(error), error);
      t.check.equal(core.text('gpu_error'), '', 'it is told once');
      core.submit([DISPATCH, good, bind, 1, 1, 1], [READ, x, 0, 16, 0]);
      t.check.equal(String(await core.came(0, 4)), '16,16,16,16');
      t.check.equal(core.text('gpu_error'), '');
    });
  },

  async 'what was prepared is compiled by then, and once'(t) {
    await withGpu(t, async (core, device) => {
      const made = [];
      for (const call of ['createComputePipeline', 'createComputePipelineAsync']) {
        const real = device[call].bind(device);
        device[call] = (about) => (made.push(call), real(about));
      }
      await core.gpu.prepared(); // nothing is under way
      core.pipeline(TRIPLE_PLUS, 'gpu_prepare');
      await core.gpu.prepared();
      const pipeline = core.pipeline(TRIPLE_PLUS);
      t.check.equal(String(made), 'createComputePipelineAsync');
      const x = core.buffer([5, 5, 5, 5]);
      core.submit([DISPATCH, pipeline, core.bind(pipeline, [x, 0, 16], [core.buffer([1, 0, 0, 0], USE.uniform), 0, 16]), 1, 1, 1], [READ, x, 0, 16, 0]);
      t.check.equal(String(await core.came(0, 4)), '16,16,16,16');
      t.check.equal(core.text('gpu_error'), '');
      // What is asked for sooner than it is ready is made at once.
      core.pipeline(`${TRIPLE_PLUS} // another`, 'gpu_prepare');
      t.check.ok(core.pipeline(`${TRIPLE_PLUS} // another`) > 0);
      t.check.equal(made.at(-1), 'createComputePipeline');
      await core.gpu.prepared();
      core.pipeline('@compute @workgroup_size(1) fn main() { nonsense(); }', 'gpu_prepare');
      await core.gpu.prepared();
      core.submit([READ, x, 0, 16, 0]);
      await core.came(0, 4);
      t.check.ok(/^invalid: ./.test(core.text('gpu_error')), 'what is wrong is told');
    });
  },

  async 'a buffer that is too large is none, or the driver says that there is no memory'(t) {
    await withGpu(t, async (core, device) => {
      const most = device.limits.maxBufferSize;
      t.check.equal(core.sb.gpu_buffer(most + 4, USE.storage), 0);
      t.check.equal(core.text('gpu_error'), '');
      const held = [];
      let error = '';
      while (!error && held.length < N_LARGEST) {
        held.push(core.sb.gpu_buffer(most, USE.storage));
        await device.queue.onSubmittedWorkDone();
        error = core.text('gpu_error');
      }
      if (error) t.check.ok(error.startsWith('memory: ') && error.includes(String(most)), error);
      else t.check.equal(held.length, N_LARGEST, 'there was room for all');
      for (const buffer of held) core.sb.gpu_buffer_free(buffer);
      core.submit([READ, core.buffer([1, 2, 3, 4]), 0, 16, 0]);
      t.check.equal(String(await core.came(0, 4)), '1,2,3,4', 'smaller ones still work');
    });
  },

  async 'no memory, as a driver would say it'({ Gpu, check }) {
    class GPUOutOfMemoryError extends Error {}
    let onError;
    const device = {
      limits: { maxBufferSize: 1000 },
      lost: new Promise(() => {}),
      addEventListener: (_, listener) => (onError = listener),
      pushErrorScope() {},
      popErrorScope: async () => new GPUOutOfMemoryError('none is left'),
      createBuffer: () => ({}),
    };
    const gpu = new Gpu();
    await gpu.open(async () => ({ requestAdapter: async () => ({ features: new Set(), limits: {}, info: {}, requestDevice: async () => device }) }));
    const core = new Caller(gpu, false);
    check.equal(core.sb.gpu_buffer(100, USE.storage), 1);
    await null;
    check.equal(core.text('gpu_error'), 'memory: 100 bytes: none is left');
    onError({ error: new GPUOutOfMemoryError('for a pipeline'), preventDefault() {} });
    onError({ error: new Error('second'), preventDefault() {} });
    check.equal(core.text('gpu_error'), 'memory: for a pipeline', 'the first one');
  },

  async 'a device that goes: what was under way fails, and it is said that it is lost'(t) {
    await withGpu(t, async (core, device) => {
      const pipeline = core.pipeline(TRIPLE_PLUS);
      const x = core.buffer([1, 1, 1, 1]);
      const bind = core.bind(pipeline, [x, 0, 16], [core.buffer([1, 0, 0, 0], USE.uniform), 0, 16]);
      core.submit([DISPATCH, pipeline, bind, 1, 1, 1], [READ, x, 0, 16, 0], [READ, x, 0, 8, 1]);
      const answered = core.gpu.answered();
      device.destroy();
      await answered;
      t.check.equal(await core.came(0, 4), -1);
      t.check.equal(await core.came(1, 2), -1);
      await device.lost;
      await null;
      t.check.ok(core.text('gpu_error').startsWith('lost: '), 'it is lost');
      t.check.equal(core.text('gpu_error'), '', 'it is told once');
      // Whoever has not noticed yet does no harm.
      const y = core.buffer([1, 2, 3, 4]);
      core.submit([DISPATCH, pipeline, bind, 1, 1, 1], [READ, y, 0, 16, 0]);
      t.check.equal(await core.came(0, 4), -1);
      core.sb.gpu_buffer_free(y);
    });
  },

  async 'a device that goes between a read that has come and its taking'(t) {
    await withGpu(t, async (core, device) => {
      const x = core.buffer([1, 2, 3, 4]);
      core.submit([READ, x, 0, 16, 0]);
      await core.gpu.answered();
      device.destroy();
      t.check.equal(core.take(0, 4), 0, 'not any more');
      t.check.equal(await core.came(0, 4), -1);
      t.check.ok(core.text('gpu_error').startsWith('lost: '), 'it is lost');
    });
  },

  async 'a device that went is opened anew when it is asked for; what the old one had can be freed'(t) {
    const OPENING = 0xffff_ffff;
    await withGpu(t, async (core, device) => {
      const run = async () => {
        const pipeline = core.pipeline(TRIPLE_PLUS);
        const x = core.buffer([1, 2, 3, 4]);
        const bind = core.bind(pipeline, [x, 0, 16], [core.buffer([1, 0, 0, 0], USE.uniform), 0, 16]);
        core.submit([DISPATCH, pipeline, bind, 1, 1, 1], [READ, x, 0, 16, 0]);
        return { x, bind, words: String(await core.came(0, 4)) };
      };
      t.check.equal(core.sb.gpu_open(), 1);
      const old = await run();
      device.destroy();
      await device.lost;
      await null;
      t.check.equal(core.sb.gpu_open(), OPENING);
      t.check.equal(core.sb.gpu_open(), OPENING, 'once');
      while (core.sb.gpu_open() === OPENING) await core.gpu.answered();
      t.check.equal(core.sb.gpu_open(), 2);
      t.check.equal(core.text('gpu_error'), '', 'of the old one');
      const fresh = await run();
      t.check.equal(fresh.words, '4,7,10,13');
      t.check.equal(fresh.words, old.words);
      core.sb.gpu_bind_free(old.bind);
      core.sb.gpu_buffer_free(old.x);
      t.check.equal((await run()).words, old.words);
    });
  },
};
