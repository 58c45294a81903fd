// llama.cpp natively, through node-llama-cpp's prebuilt binary: one process a start, JSON lines (process.mjs says which).
import readline from 'node:readline';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const [file, threads, context_size] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const gpu = process.argv[5] ?? false; // 'vulkan', 'cuda': the package's binary for it must be there
const cpu_ms = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1000; };
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');

const llama = await getLlama({ gpu, build: 'never', skipDownload: true, maxThreads: 0, logLevel: LlamaLogLevel.error });
const before = performance.now();
const model = await llama.loadModel({ modelPath: file, gpuLayers: gpu ? 'max' : 0 });
const context = await model.createContext({ contextSize: context_size, batchSize: context_size, threads: { ideal: threads, min: threads } });
const sequence = context.getSequence();
say({ load_ms: performance.now() - before, about: { gpu: llama.gpu, layers_on_gpu: model.gpuLayers, threads: context.currentThreads, context: context.contextSize, batch: context.batchSize, flash_attention: context.flashAttention } });

async function generate(ids, n) {
  await sequence.clearHistory();
  const out = [];
  const at = { start: performance.now(), start_cpu: cpu_ms() };
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    if (!out.length) Object.assign(at, { first: performance.now(), first_cpu: cpu_ms() });
    out.push(token);
    if (out.length === n) break;
  }
  Object.assign(at, { end: performance.now(), end_cpu: cpu_ms() });
  if (out.length !== n) throw new Error(`generated ${out.length} of ${n} tokens`);
  return { out, at };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    const request = JSON.parse(line);
    if (request.tokenize !== undefined) say({ ids: model.tokenize(request.tokenize) });
    else if (request.detokenize !== undefined) say({ text: model.detokenize(request.detokenize) });
    else if (request.prompt !== undefined) {
      const { out, at } = await generate(model.tokenize(request.prompt), request.n);
      say({ text: model.detokenize(out), first_token_ms: at.first });
    } else {
      const { out, at } = await generate(request.ids, request.n);
      say({ n_prompt: request.ids.length, prefill_ms: at.first - at.start, prefill_cpu_ms: at.first_cpu - at.start_cpu,
        n_decode: out.length - 1, decode_ms: at.end - at.first, decode_cpu_ms: at.end_cpu - at.first_cpu });
    }
  } catch (e) { say({ error: String(e?.stack ?? e) }); }
}
await llama.dispose();
