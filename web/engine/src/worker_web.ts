// The worker's entry in a page.
import { webOpener } from './load.ts';
import { webSink } from './sink.ts';
import type { FromWorker, ToWorker } from './messages.ts';
import { serve } from './worker.ts';

// TypeScript's DOM library knows windows only.
const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

serve(
  {
    post: (message, transfer = []) => scope.postMessage(message, transfer),
    onMessage: (listener) => {
      scope.onmessage = (event) => listener(event.data);
    },
  },
  webOpener,
  webSink,
  (work) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = work;
    return () => port2.postMessage(0);
  },
  async () => {
    if (navigator.gpu) return navigator.gpu;
    throw new Error(isSecureContext ? 'this browser has no WebGPU, or has it switched off' : 'WebGPU needs a page that comes over https, or from this machine');
  },
);
