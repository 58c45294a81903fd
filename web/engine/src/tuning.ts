// How many threads answer soonest here: measured at the first start and kept. What a browser says of its cores can be too few or too many (some
// say four or eight of any machine), and threads that want one core wait for each other.
import type { Measured } from './types.ts';

/** A machine may be busy just then: what the browser says of its cores is left only for what is clearly faster. */
const CLEARLY = 1.25;
/** Fewer threads that are as fast but for this leave a core to others. */
const AS_FAST = 1.05;
const DAY_MS = 24 * 3600 * 1000;
const DAYS = { all: 30, fewer: 1 }; // for so long is it kept: it may be busy no more

/** The numbers worth measuring: all, half of them, and so on; one is measured beside each. */
export function candidates(most: number): number[] {
  const all = [most];
  for (let n = most; n > 2; ) all.push((n = Math.ceil(n / 2)));
  return all;
}

export function fastest(measured: Measured[]): number {
  const best = Math.min(...measured.map(({ answerNs }) => answerNs));
  const within = (share: number) => measured.filter(({ answerNs }) => answerNs <= best * share).map(({ threads }) => threads);
  const most = Math.max(...measured.map(({ threads }) => threads));
  return within(CLEARLY).includes(most) ? most : Math.min(...within(AS_FAST));
}

const FOLDER = 'subbyte'; // in the site's storage, with the downloads
const OURS = 'threads-';
// A file's name says it all, so that no half of it is ever read. No dot: that is of downloads under way.
const nameOf = (what: string, most: number, threads: number) =>
  `${OURS}${Math.floor(Date.now() / DAY_MS / (threads === most ? DAYS.all : DAYS.fewer))}-${what}-${threads}-of-${most}`.replaceAll('.', '_');

type Folder = FileSystemDirectoryHandle & { keys(): AsyncIterable<string> };
const folderOf = async (create: boolean) => (await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create })) as Folder;

/** The number kept for `what`, or null. */
export async function recall(what: string, most: number): Promise<number | null> {
  try {
    const folder = await folderOf(false);
    const numbers = [...candidates(most), 1];
    const there = await Promise.all(numbers.map((n) => folder.getFileHandle(nameOf(what, most, n)).then(() => true, () => false)));
    return numbers.find((_, i) => there[i]) ?? null;
  } catch {
    return null; // no storage here, or nothing in it
  }
}

export async function keep(what: string, most: number, threads: number): Promise<void> {
  try {
    const folder = await folderOf(true);
    for await (const name of folder.keys()) if (name.startsWith(OURS)) await folder.removeEntry(name).catch(() => {});
    await folder.getFileHandle(nameOf(what, most, threads), { create: true });
  } catch {
    // Then the next visit measures again.
  }
}
