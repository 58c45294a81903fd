// How many threads answer soonest here: measured at the first start and kept. What a browser says of its cores can be too few or too many (some
// say four or eight of any machine), and threads that want one core wait for each other.
import { findFolder } from './cache.ts';
import type { Measured } from './types.ts';

/** A machine may be busy just then: what the browser says of its cores is left only for what is clearly faster. */
const CLEARLY = 1.25;
/** Fewer threads that are as fast but for this leave a core to others. */
const AS_FAST = 1.05;
const DAY_MS = 24 * 3600 * 1000;
const DAYS = { all: 30, fewer: 7 }; // for so long is it kept: it may be busy no more

/** The numbers worth measuring: all, half of them, and so on; one is measured beside each. */
function candidates(most: number): number[] {
  const all = [most];
  for (let n = most; n > 2; ) all.push((n = Math.ceil(n / 2)));
  return all;
}

function fastest(measured: Measured[]): number {
  const best = Math.min(...measured.map(({ answerNs }) => answerNs));
  const within = (share: number) => measured.filter(({ answerNs }) => answerNs <= best * share).map(({ threads }) => threads);
  const most = Math.max(...measured.map(({ threads }) => threads));
  return within(CLEARLY).includes(most) ? most : Math.min(...within(AS_FAST));
}

const OURS = 'threads-'; // of the names where downloads are kept
// A file's name says it all, so that no half of it is ever read. No dot: that is of downloads under way.
const nameOf = (what: string, most: number, threads: number) =>
  `${OURS}${Math.floor(Date.now() / DAY_MS / (threads === most ? DAYS.all : DAYS.fewer))}-${what}-${threads}-of-${most}`.replaceAll('.', '_');

/** The number kept for `what`, or null. */
async function recall(what: string, most: number): Promise<number | null> {
  try {
    const folder = await findFolder(false);
    const numbers = [...candidates(most), 1];
    const there = await Promise.all(numbers.map((n) => folder.getFileHandle(nameOf(what, most, n)).then(() => true, () => false)));
    return numbers.find((_, i) => there[i]) ?? null;
  } catch {
    return null; // no storage here, or nothing in it
  }
}

async function keep(what: string, most: number, threads: number): Promise<void> {
  try {
    const folder = await findFolder(true);
    for await (const name of folder.keys()) if (name.startsWith(OURS)) await folder.removeEntry(name).catch(() => {});
    await folder.getFileHandle(nameOf(what, most, threads), { create: true });
  } catch {
    // Then the next visit measures again.
  }
}

/** As many threads as an earlier start of `what` found to answer soonest, or found now, of at most `most`. `measure`: a number of them, and one. */
export type Tune = (what: string, most: number, isAnew: boolean, measure: (threads: number) => Promise<Measured[]>) => Promise<{ threads: number; measured: Measured[] }>;

export const tune: Tune = async (what, most, isAnew, measure) => {
  const known = isAnew ? null : await recall(what, most);
  if (known) return { threads: known, measured: [] };
  const look = async () => {
    const measured: Measured[] = [];
    for (const threads of candidates(most)) measured.push(...(await measure(threads)));
    return { threads: fastest(measured), measured };
  };
  const first = await look();
  // A browser that has only just begun is busy with itself for a second, and then all threads seem slow: fewer must win twice.
  const { threads, measured } = first.threads === most ? first : await look();
  await keep(what, most, threads);
  return { threads, measured };
};
