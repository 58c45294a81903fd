// One prompt through the engine's package: the same text in a page and in Node. `emit` gets {text} pieces, progress and at last {result}.
export async function runModel(Engine, job, emit) {
  const started = performance.now();
  let engine;
  try {
    engine = await Engine.create(job.engine);
    const { capabilities } = engine;
    emit({ capabilities });
    const model = await engine.load(job.source, { ...job.load, onProgress: (progress) => emit({ progress }) });
    const loadMs = performance.now() - started;
    const stream = model.generate(job.prompt, job.generate);
    for await (const part of stream) emit({ text: part.text });
    const { text, ids, usage, finishReason } = await stream.result;
    const memory = await model.memory();
    await model.dispose();
    emit({
      result: {
        text,
        tokens: ids.length,
        ids,
        backend: job.backend,
        device: `${capabilities.device} ${capabilities.isa} ×${capabilities.threads}`,
        prefill_tokens_per_s: usage.prefillTokensPerS,
        decode_tokens_per_s: usage.decodeTokensPerS,
        first_token_ms: usage.firstTokenMs,
        load_ms: loadMs,
        peak_bytes: memory.peak,
        bytes_by_tag: Object.fromEntries(Object.entries(memory.byTag).map(([tag, books]) => [tag, books.peak])),
        prompt_tokens: usage.promptTokens,
        finish_reason: finishReason,
        build: capabilities.build,
        threads: capabilities.threads,
        wasm_bytes: memory.wasmBytes,
      },
    });
  } catch (error) {
    emit({ error: { code: error.code ?? error.name, message: error.message, hint: error.hint ?? '' } });
  } finally {
    await engine?.dispose();
    emit({ over: true });
  }
}

/** Runs every golden folder given as {name, load(): source, golden(): bytes}; emits a report each. */
export async function runGolden(Engine, job, emit) {
  let engine;
  try {
    engine = await Engine.create(job.engine);
    emit({ capabilities: engine.capabilities });
    for (const { name, source, golden, wantsDump } of job.folders) {
      try {
        const model = await engine.load(source, { cache: 'off' });
        const { dump, ...report } = await model.golden(await golden());
        await model.dispose();
        emit({ golden: { name, ...report }, ...(wantsDump ? { dump } : {}) });
      } catch (error) {
        emit({ golden: { name, passed: false, error: { code: error.code ?? error.name, message: error.message, hint: error.hint ?? '' } } });
      }
    }
  } catch (error) {
    emit({ error: { code: error.code ?? error.name, message: error.message, hint: error.hint ?? '' } });
  } finally {
    await engine?.dispose();
    emit({ over: true });
  }
}
