// Finding a browser's program, and a fresh profile for it.
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, isAbsolute, join } from 'node:path';

/** A browser that is not here: tests skip and count it, `./dev` says how to get it. */
export class BrowserMissing extends Error {}

/** The first of `candidates` (absolute paths or names on PATH) that can be run. `variable` overrides them. */
export function findProgram(variable, candidates, packageName) {
  const folders = (process.env.PATH ?? '').split(delimiter);
  for (const candidate of [process.env[variable], ...candidates].filter(Boolean)) {
    for (const path of isAbsolute(candidate) ? [candidate] : folders.map((folder) => join(folder, candidate))) {
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // the next one
      }
    }
  }
  throw new BrowserMissing(`${candidates[0]} is not here: install ${packageName}, or name the program in ${variable}`);
}

export function freshProfile(name) {
  const path = mkdtempSync(join(tmpdir(), `subbyte-${name}-`));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }) };
}
