// Keeps other runs off a folder that is being written, in Node. The command line heeds the same file (apps/cli/partial_folder.cc): it holds
// it by flock, which Node does not have, so the file says which process has it, and holds as long as that lives.
import { randomUUID } from 'node:crypto';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';

import { failure } from './errors.ts';

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;

const processOf = (text: string) => Number(/\d+/.exec(text)?.[0] ?? 0);

function isHeld(text: string): boolean {
  const pid = processOf(text);
  if (!pid) return true; // just being made
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM'; // somebody else's
  }
}

/** Takes the lock `file`, and gives what lets go of it. Errors: kTargetBusy when another run has it; those of the file system as they come. */
export async function takeLock(file: string, target: string): Promise<() => Promise<void>> {
  const own = `${file}.${randomUUID()}`;
  try {
    for (;;) {
      await writeFile(own, `${process.pid}\n`);
      try {
        await link(own, file); // with its text, or not at all
        return () => rm(file, { force: true });
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
      }
      const text = await readFile(file, 'utf8').catch((error: unknown) => {
        if (codeOf(error) === 'ENOENT') return null; // gone meanwhile
        throw error;
      });
      if (text === null) continue;
      if (isHeld(text)) throw failure('kTargetBusy', { target, who: `process ${processOf(text) || '?'} has ${file}` });
      // Of a run that was killed. Moved away, not removed: another run may have put its own there since.
      await rename(file, own).catch((error: unknown) => {
        if (codeOf(error) !== 'ENOENT') throw error;
      });
      if ((await readFile(own, 'utf8')) !== text) await link(own, file).catch(() => {});
      await rm(own, { force: true }); // so that the other's file is not written into
    }
  } finally {
    await rm(own, { force: true });
  }
}
