// A GPU over another one whose devices are seen, and may be changed, before whoever asked for them has them. In Node and in pages.

/** `onDevice(device)` hears of each; `told` is what its adapters say of themselves, if not the truth. */
export function watchedGpu(real, onDevice, told) {
  return {
    wgslLanguageFeatures: real.wgslLanguageFeatures,
    async requestAdapter(options) {
      const adapter = await real.requestAdapter(options);
      if (!adapter) return null;
      const { features, limits, info } = adapter;
      const requestDevice = async (wanted) => {
        const device = await adapter.requestDevice(wanted);
        onDevice(device);
        return device;
      };
      return { features, limits, info: told ?? info, keep: real, requestDevice };
    },
  };
}

/** The engine's worker in this thread of Node's finds it. */
export function offerGpu(gpu) {
  Object.defineProperty(globalThis.navigator ?? (globalThis.navigator = {}), 'gpu', { value: gpu });
}
