// What a plain tiled product of float32 takes on this GPU: what a prompt's products are a share of. y [T, N] = x [T, K] · W [N, K]ᵀ.
const STORAGE = 0x80, COPY_SRC = 0x04, COPY_DST = 0x08, MAP_READ = 0x01;
const STEP = 16; // inputs a turn
const TURNS = 5;

/** A workgroup of 256 lanes makes a square of y, each lane `per` × `per` of it. */
function kernel(per) {
  const side = 16 * per;
  const list = (n, line) => Array.from({ length: n }, (_, i) => line(i)).join('\n');
  return `struct Shape { k: u32, n: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> W: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> shape: Shape;
var<workgroup> a: array<f32, ${STEP * side}>; // [step, row]: a lane's rows lie side by side
var<workgroup> b: array<f32, ${STEP * side}>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  let row = group.y * ${side}u;
  let column = group.x * ${side}u;
  let mine = (l / 16u) * ${per}u;
  let other = (l % 16u) * ${per}u;
  var sums: array<f32, ${per * per}>;
  for (var k = 0u; k < shape.k; k += ${STEP}u) {
    workgroupBarrier();
    for (var i = l; i < ${(STEP / 4) * side}u; i += 256u) {
      let r = i / ${STEP / 4}u;
      let at = (i % ${STEP / 4}u) * 4u;
      let u = x[((row + r) * shape.k + k + at) / 4u];
      let v = W[((column + r) * shape.k + k + at) / 4u];
${list(4, (c) => `      a[(at + ${c}u) * ${side}u + r] = u[${c}]; b[(at + ${c}u) * ${side}u + r] = v[${c}];`)}
    }
    workgroupBarrier();
    for (var s = 0u; s < ${STEP}u; s++) {
${list(per, (i) => `      let p${i} = a[s * ${side}u + mine + ${i}u]; let q${i} = b[s * ${side}u + other + ${i}u];`)}
${list(per * per, (i) => `      sums[${i}] = fma(p${Math.floor(i / per)}, q${i % per}, sums[${i}]);`)}
    }
  }
${list(per * per, (i) => `  y[(row + mine + ${Math.floor(i / per)}u) * shape.n + column + other + ${i % per}u] = sums[${i}];`)}
}`;
}

/** Milliseconds of each of `shapes` ([N, K], multiples of 128) with `nTokens` rows (likewise): the faster of two tile sizes, the best of five. */
export async function plainMatmulMs(device, shapes, nTokens) {
  const buffer = (size, usage) => device.createBuffer({ size, usage });
  const noise = (n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
  const pipelines = [4, 8].map((per) => ({
    side: 16 * per,
    pipeline: device.createComputePipeline({ layout: 'auto', compute: { module: device.createShaderModule({ code: kernel(per) }), entryPoint: 'main' } }),
  }));
  const times = [];
  for (const [n, k] of shapes) {
    const [xs, ws] = [noise(nTokens * k), noise(n * k)];
    const [x, W, y, shape] = [buffer(xs.byteLength, STORAGE | COPY_DST), buffer(ws.byteLength, STORAGE | COPY_DST), buffer(4 * nTokens * n, STORAGE | COPY_SRC), buffer(8, 0x40 | COPY_DST)];
    device.queue.writeBuffer(x, 0, xs);
    device.queue.writeBuffer(W, 0, ws);
    device.queue.writeBuffer(shape, 0, new Uint32Array([k, n]));
    let best = Infinity;
    for (const { side, pipeline } of pipelines) {
      const entries = [x, W, y, shape].map((b, binding) => ({ binding, resource: { buffer: b } }));
      const binds = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
      for (let turn = 0; turn <= TURNS; ++turn) {
        const begin = performance.now();
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, binds);
        for (let i = 0; i < 4; ++i) pass.dispatchWorkgroups(n / side, nTokens / side);
        pass.end();
        device.queue.submit([encoder.finish()]);
        await device.queue.onSubmittedWorkDone();
        if (turn) best = Math.min(best, (performance.now() - begin) / 4);
      }
      // One place of the answer against float64.
      const [t, o] = [Math.floor(Math.random() * nTokens), Math.floor(Math.random() * n)];
      const read = buffer(256, MAP_READ | COPY_DST);
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(y, 4 * (t * n + o), read, 0, 4);
      device.queue.submit([encoder.finish()]);
      await read.mapAsync(1);
      const [got] = new Float32Array(read.getMappedRange(0, 4));
      let wanted = 0;
      for (let i = 0; i < k; ++i) wanted += xs[t * k + i] * ws[o * k + i];
      if (!(Math.abs(got - wanted) < 1e-3 * Math.sqrt(k))) throw new Error(`the plain product is ${got}, not ${wanted}`);
      read.destroy();
    }
    times.push(best);
    for (const b of [x, W, y, shape]) b.destroy();
  }
  return times;
}
