// A GPU that goes when it is told to: `node --import lose_gpu.mjs`, also in the workers that the engine starts. Over the real one (Dawn).
// A test says by gpuLoser() after how many calls of which kind the device that is open then is destroyed. With SUBBYTE_TEST_HARD_GPU in the
// environment of a worker its GPU does not say that it is a program.
import { BroadcastChannel, isMainThread } from 'node:worker_threads';

import { offerGpu, watchedGpu } from './watched_gpu.mjs';

const CHANNEL = 'subbyte-lose-gpu';

let plan = null; // {call, after, times = 1, isGone}: a device goes after so many of these calls, and so do its successors; isGone: there is none
let left = 0;
const calls = {}; // how many of each there were
const gone = new WeakSet();

/** Before the call that is to be the last. */
function count(device, call) {
  calls[call] = (calls[call] ?? 0) + 1;
  if (!plan || plan.call !== call || left < 0 || gone.has(device) || --left >= 0) return;
  gone.add(device);
  device.destroy();
  if (--plan.times > 0) left = plan.after;
}

const counted = (device, object, call) => {
  const real = object[call].bind(object);
  object[call] = (...args) => {
    count(device, call);
    return real(...args);
  };
};

function makeLosable(device) {
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (about) => {
    const buffer = createBuffer(about);
    counted(device, buffer, 'getMappedRange');
    return buffer;
  };
  for (const call of ['createComputePipeline', 'createComputePipelineAsync', 'createBindGroup', 'createBuffer']) counted(device, device, call);
  for (const call of ['submit', 'writeBuffer']) counted(device, device.queue, call);
}

if (!isMainThread) {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => {
    if (data.asks) channel.postMessage({ calls });
    if (!data.plan) return;
    plan = { times: 1, ...data.plan };
    left = plan.after;
    channel.postMessage({ heard: true });
  };
  channel.unref();
  const { create } = await import('webgpu');
  const told = process.env.SUBBYTE_TEST_HARD_GPU ? { vendor: '', architecture: '', device: '', description: 'a GPU' } : undefined;
  const gpu = watchedGpu(create([]), makeLosable, told);
  offerGpu({ requestAdapter: async (options) => (plan?.isGone && left < 0 ? null : gpu.requestAdapter(options)), wgslLanguageFeatures: new Set() });
}

/** Tells workers: lose({call, after, times, isGone}) resolves when one has heard it; it counts from then on. calls() asks one how many calls
 * there were. */
export function gpuLoser() {
  const channel = new BroadcastChannel(CHANNEL);
  let heard = () => {};
  let told = () => {};
  channel.onmessage = ({ data }) => {
    if (data.heard) heard();
    if (data.calls) told(data.calls);
  };
  return {
    lose: (what) =>
      new Promise((resolve) => {
        heard = resolve;
        channel.postMessage({ plan: what });
      }),
    calls: () =>
      new Promise((resolve) => {
        told = resolve;
        channel.postMessage({ asks: true });
      }),
    close: () => channel.close(),
  };
}
