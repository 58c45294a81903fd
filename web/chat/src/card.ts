// What a quantised folder says of itself: the loss that was measured when it was made (model-card.json).
import type { ModelSource } from 'subbyte';

export interface Loss {
  /** What it was compared with: the model that it was made from. */
  source: string;
  kl: number;
  klSe: number;
  ppl: number;
  pplRef: number;
  top1: number;
  top1Ref: number;
  /** Relative: 0.02 is one right answer of fifty lost. */
  top1Drop: number;
  nTokens: number;
  bpwLinears: number;
  bpwEmbedding: number;
}

const CARD = 'model-card.json';

interface Card {
  source: string;
  quantizer: { bpw_linears: number; bpw_embedding: number };
  evaluation?: { kl: number; kl_se: number; ppl: number; ppl_ref: number; top1: number; top1_ref: number; top1_drop: number; n_tokens: number };
}

/** Null where there is none, or where it does not measure a loss. */
export async function lossOf(source: ModelSource): Promise<Loss | null> {
  try {
    const text = await cardText(source);
    if (text === null) return null;
    const { source: from, quantizer, evaluation: e } = JSON.parse(text) as Card;
    const loss: Loss | null = e
      ? { source: from, kl: e.kl, klSe: e.kl_se, ppl: e.ppl, pplRef: e.ppl_ref, top1: e.top1, top1Ref: e.top1_ref, top1Drop: e.top1_drop, nTokens: e.n_tokens, bpwLinears: quantizer.bpw_linears, bpwEmbedding: quantizer.bpw_embedding }
      : null;
    return loss && Object.values(loss).every((value) => typeof value === 'string' || Number.isFinite(value)) ? loss : null;
  } catch {
    return null; // a card of another make: then there is nothing that could be said
  }
}

async function cardText(source: ModelSource): Promise<string | null> {
  if (typeof source === 'string' || source instanceof URL) {
    const url = new URL(source, location.href);
    if (!url.protocol.startsWith('http') || /\.[^/]*$/.test(url.pathname)) return null; // a file has no card beside it
    if (!url.pathname.endsWith('/')) url.pathname += '/';
    const response = await fetch(new URL(CARD, url));
    return response.ok ? response.text() : null;
  }
  if (Array.isArray(source)) {
    const file = source.find((blob): blob is File => blob instanceof File && blob.name === CARD);
    return file ? file.text() : null;
  }
  if ('kind' in source) return (await (await source.getFileHandle(CARD)).getFile()).text();
  return null;
}
