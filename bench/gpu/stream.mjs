// The rate at which a plain kernel reads memory, bytes a second: what a product's rate is a share of. And a device to measure on.
const STORAGE = 0x80;
const REPEATS = 200;

/** Dawn through npm's `webgpu`, with as large buffers as there are. */
export async function openDevice() {
  const { create, globals } = await import('../../web/node_modules/webgpu/index.js');
  Object.assign(globalThis, globals);
  const gpu = create([]);
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const device = await adapter.requestDevice({ requiredLimits: { maxBufferSize, maxStorageBufferBindingSize } });
  globalThis.benchDevice = [gpu, adapter, device]; // kept: in Node a device goes when what it came from is collected
  return device;
}

/** Reads 1 GiB in pieces of 64 MiB, over and over; the best of five. */
export async function streamRate(device) {
  const code = `@group(0) @binding(0) var<storage, read> W: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> z: array<u32>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  let i = group.x * 2048u + l;
  var s = vec4u(0u);
${Array.from({ length: 8 }, (_, u) => `  let v${u} = W[i + ${u * 256}u];`).join('\n')}
${Array.from({ length: 8 }, (_, u) => `  s ^= v${u};`).join('\n')}
  if (s.x == 0x12345678u && s.y == 0x9abcdef0u) { z[0] = s.z; }
}`;
  const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module: device.createShaderModule({ code }), entryPoint: 'main' } });
  const size = 64 << 20;
  const answer = device.createBuffer({ size: 256, usage: STORAGE });
  const binds = Array.from({ length: 16 }, () => {
    const buffer = device.createBuffer({ size, usage: STORAGE });
    return device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [buffer, answer].map((b, binding) => ({ binding, resource: { buffer: b } })) });
  });
  let best = Infinity; // ms
  for (let turn = 0; turn < 6; ++turn) {
    const begin = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    for (let i = 0; i < REPEATS; ++i) {
      pass.setBindGroup(0, binds[i % binds.length]);
      pass.dispatchWorkgroups(size / (2048 * 16));
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    if (turn) best = Math.min(best, performance.now() - begin);
  }
  return (REPEATS * size * 1000) / best;
}
