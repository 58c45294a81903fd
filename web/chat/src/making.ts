// Watches the server make the default model: it quantises in the background while the page chats with the source.
import type { SideCard } from './side.ts';

const POLL_MS = 1000;

/** /quantising.json of web/chat/serve.mjs. */
export interface Making {
  state: 'none' | 'running' | 'done' | 'failed';
  name: string;
  phase: string;
  fraction: number;
  leftMs: number | null;
  error?: { code: string; message: string };
}

const PHASES: Record<string, string> = { start: 'starting', sensitivity: 'measuring what matters', quantize: 'quantising', evaluate: 'measuring the loss' };

/** Shows how far it is, and resolves to true once it is there; to false when nothing is being made, or it failed, which the card says. */
export async function watchMaking(card: SideCard): Promise<boolean> {
  let wasRunning = false;
  for (;;) {
    let making: Making;
    try {
      const response = await fetch('quantising.json', { cache: 'no-store' });
      if (!response.ok) return false; // a plain static host
      making = (await response.json()) as Making;
    } catch {
      if (!wasRunning) return false;
      card.fail('The small model is not ready', 'The server has gone; start it again and it goes on where it was. The chat goes on here.');
      return false;
    }
    switch (making.state) {
      case 'running':
        wasRunning = true;
        card.show({ title: `Making ${making.name}`, phase: PHASES[making.phase] ?? making.phase, fraction: making.fraction, leftMs: making.leftMs });
        break;
      case 'failed':
        card.fail(`${making.name} could not be made`, `${making.error?.message ?? ''} The chat goes on with the model that is here.`);
        return false;
      case 'done':
        return true;
      case 'none':
        return false;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
