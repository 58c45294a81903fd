// Quantising in a worker: the core says which bytes go where, a sink writes them. The module is the quantiser's own, larger than the one that
// answers, and fetched for this alone.
import { abortError } from './errors.ts';
import { bring, type Opener } from './load.ts';
import type { QuantizeJob } from './messages.ts';
import type { Progress, QuantizeProgress } from './types.ts';
import type { Core } from './wasm.ts';

/** Where the folder goes. Whoever opened the target takes it away again when this fails, also when this worker is gone. */
export interface FolderSink {
  write(file: string, offset: number, bytes: Uint8Array): Promise<void>;
  /** Everything so far is in its files, which may be read now. */
  settle(): Promise<void>;
}

export interface QuantizeTools {
  core: Core;
  engine: number;
  source: Opener;
  target: Opener;
  sink: FolderSink;
  abort: AbortSignal;
  /** Lets messages in, an abort among them. */
  breathe(): Promise<void>;
  tell(progress: QuantizeProgress): void;
}

const STEP_MORE = 1;
const HELD_OUT = 12; // this part of the text is not calibrated on, but measured on
const REQUEST_BYTES = 32;

/** The text to calibrate on, and its last twelfth, from a line's begin, to measure on. */
function split(text: Uint8Array): [Uint8Array, Uint8Array] {
  const from = text.length - Math.floor(text.length / HELD_OUT);
  const newline = text.indexOf(10, from);
  const at = newline < 0 ? text.length : newline;
  return [text.subarray(0, at), text.subarray(at)];
}

export async function quantize(tools: QuantizeTools, job: QuantizeJob): Promise<object> {
  const { core, engine, sink } = tools;
  const [calibration, heldOut] = split(job.text);
  const clock = forecasts(tools.tell);
  const load = (open: Opener, options: string, finish: (done: number) => number) => {
    const tell = ({ loadedBytes, totalBytes }: Progress) => clock('load', totalBytes ? loadedBytes / totalBytes : 0);
    return bring(core, { begin: () => core.handle('sb_load_create', engine, options), open, abort: tools.abort, tell }, finish);
  };

  const quantizer = await load(tools.source, job.sourceOptions, (done) =>
    withBytes(core, calibration, (at) => core.handle('sb_quantizer_create', engine, done, at, BigInt(calibration.length), 0, job.options)),
  );
  let report: object;
  const request = core.alloc(REQUEST_BYTES);
  try {
    for (let more = true; more; ) {
      more = core.check('sb_quantizer_step', quantizer) === STEP_MORE;
      while (core.call('sb_quantizer_write', quantizer, request)) {
        const { file, offset, nBytes, at } = core.readRequest(request);
        await sink.write(file, offset, core.bytes.slice(at, at + nBytes));
      }
      const { phase, fraction } = core.json<{ phase: QuantizeProgress['phase'] | 'done'; fraction: number }>('sb_quantizer_progress', quantizer);
      if (phase !== 'done') clock(phase, fraction);
      await pause(tools);
    }
    report = core.json('sb_quantizer_report', quantizer);
  } finally {
    core.free(request);
    core.call('sb_quantizer_free', quantizer);
  }
  await sink.settle();

  const evaluation = job.evalWindows ? await measure(tools, job, heldOut, clock, load) : null;
  const card = { source: job.sourceName, quantizer: report, ...(evaluation ? { evaluation } : {}) };
  await sink.write('model-card.json', 0, new TextEncoder().encode(`${JSON.stringify(card, null, 1)}\n`));
  await sink.settle();
  return { report, evaluation };
}

type Clock = (phase: QuantizeProgress['phase'], fraction: number) => void;
type Load = (open: Opener, options: string, finish: (done: number) => number) => Promise<number>;

/** What was lost, read back as those who will use the folder read it. Null when the text is too short to hold some out. */
async function measure(tools: QuantizeTools, job: QuantizeJob, text: Uint8Array, clock: Clock, load: Load): Promise<object | null> {
  const { core } = tools;
  const owned: [string, number][] = [];
  const own = (free: string, handle: number) => (owned.unshift([free, handle]), handle);
  const finish = (done: number) => core.handle('sb_load_finish', done);
  try {
    const made = own('sb_model_free', await load(tools.target, job.targetOptions, finish));
    const reference = own('sb_model_free', await load(tools.source, job.sourceOptions, finish));
    const evaluation = own(
      'sb_eval_free',
      withBytes(core, text, (at) => core.handle('sb_eval_create', made, reference, at, BigInt(text.length), job.evalOptions)),
    );
    for (;;) {
      const more = core.check('sb_eval_step', evaluation) === STEP_MORE;
      const report = core.json<{ done_windows: number; n_windows: number }>('sb_eval_report', evaluation);
      clock('evaluate', report.done_windows / report.n_windows);
      if (!more) return report;
      await pause(tools);
    }
  } catch (error) {
    if ((error as { code?: string }).code === 'kTextTooShort') return null;
    throw error;
  } finally {
    for (const [free, handle] of owned) core.call(free, handle);
  }
}

async function pause({ abort, breathe }: QuantizeTools): Promise<void> {
  await breathe();
  if (abort.aborted) throw abortError(abort.reason);
}

/** How long each phase still takes, from how far it came since it began. */
function forecasts(tell: (progress: QuantizeProgress) => void): Clock {
  let begun = { phase: '', at: 0, fraction: 0 };
  return (phase, fraction) => {
    const now = performance.now();
    if (phase !== begun.phase) begun = { phase, at: now, fraction };
    const done = fraction - begun.fraction;
    tell({ phase, fraction, leftMs: done > 0 ? ((now - begun.at) / done) * (1 - fraction) : null });
  };
}

function withBytes<T>(core: Core, bytes: Uint8Array, use: (at: number) => T): T {
  const at = core.putBytes(bytes);
  try {
    return use(at);
  } finally {
    core.free(at);
  }
}
