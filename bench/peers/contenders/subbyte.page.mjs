// subbyte in the page, as its users call it.
import { Engine } from '/subbyte/index.js';

export async function open({ model, threads, context }) {
  const engine = await Engine.create({ threads });
  const loaded = await engine.load(model, { context });
  const generate = async (prompt, options, on_first) => {
    const stream = loaded.generate(prompt, options);
    for await (const _ of stream) on_first();
    const { text, usage } = await stream.result;
    return { text, n: usage.completionTokens, n_prompt: usage.promptTokens - usage.cachedTokens };
  };
  const { build, isa, threads: n } = engine.capabilities;
  return {
    text: async (prompt, n, on_first) => (await generate(prompt, { maxTokens: n, raw: true }, on_first)).text,
    complete: ({ ids }, n, on_first) => generate(ids, { maxTokens: n, ignoreEos: true }, on_first),
    about: { threads: n, build, isa },
  };
}
