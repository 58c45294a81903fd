// wllama 2.x in the page. Its low-level calls, because createCompletion takes text only and stops at end tokens; per token this does what
// createCompletion does: sample, accept, decode.
import { Wllama, LoggerWithoutDebug } from '/wllama/index.min.js';

export async function open({ model, threads, context }) {
  const wllama = new Wllama(
    { 'single-thread/wllama.wasm': '/wllama/single-thread/wllama.wasm', 'multi-thread/wllama.wasm': '/wllama/multi-thread/wllama.wasm' },
    { suppressNativeLog: true, logger: LoggerWithoutDebug },
  );
  await wllama.loadModelFromUrl(model, { n_ctx: context, n_threads: threads, useCache: true });
  const generate = async (ids, n, on_first) => {
    const pieces = [];
    await wllama.kvClear();
    await wllama.samplingInit({ temp: 0 });
    const { nPast } = await wllama.decode(ids, {});
    for (let i = 0; i < n; i++) {
      const { token, piece } = await wllama.samplingSample();
      if (i === 0) on_first();
      pieces.push(...piece);
      await wllama.samplingAccept([token]);
      if (i + 1 < n) await wllama.decode([token], {});
    }
    return { n_prompt: nPast, n, text: new TextDecoder().decode(new Uint8Array(pieces)) };
  };
  return {
    text: async (prompt, n, on_first) => (await generate(await wllama.tokenize(prompt), n, on_first)).text,
    complete: ({ ids }, n, on_first) => generate(ids, n, on_first),
    about: { threads: wllama.isMultithread() ? wllama.getNumThreads() : 1 },
  };
}
