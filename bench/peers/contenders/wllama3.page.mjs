// wllama 3.x in the page: llama.cpp's server behind createCompletion. Prompts as text (ids as a prompt throw inside it); streamed, so that
// the first token is seen when it comes. cache_prompt off: or a prompt's known prefix is not computed.
import { Wllama, LoggerWithoutDebug } from '/wllama/index.min.js';

const GREEDY = { temperature: 0, top_k: 1, cache_prompt: false, stream: true };

export async function open({ model, threads, context }) {
  const wllama = new Wllama({ default: '/wllama/wasm/wllama.wasm' }, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  await wllama.loadModelFromUrl(model, { n_ctx: context, n_threads: threads, n_gpu_layers: 0, n_parallel: 1, useCache: true });
  const generate = async (options, on_first) => {
    let text = '', timings;
    await wllama.createCompletion({ ...GREEDY, ...options, onData: (chunk) => {
      on_first();
      text += chunk.choices?.[0]?.text ?? '';
      timings = chunk.timings ?? timings;
    } });
    return { n_prompt: timings?.prompt_n, n: timings?.predicted_n, text, timings };
  };
  return {
    text: async (prompt, n, on_first) => (await generate({ prompt, max_tokens: n }, on_first)).text,
    complete: ({ text }, n, on_first) => generate({ prompt: text, max_tokens: n, ignore_eos: true }, on_first),
    about: { threads: wllama.isMultithread() ? wllama.getNumThreads() : 1, llama: Wllama.getLibllamaVersion?.() },
  };
}
