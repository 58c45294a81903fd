#!/usr/bin/env node
// The build's guard: a module may import our own functions and its memory, nothing else, and exports the whole C API and nothing of libc.
// usage: check_wasm.mjs FILE.wasm EXPORT[,EXPORT…] IMPORT[,IMPORT…]
// Reads the sections itself: Node 20 refuses relaxed SIMD modules unless told at its start, newer ones refuse to be told.
import { readFileSync } from 'node:fs';

const TOOLCHAIN = new Set(['memory', '_initialize', '__stack_pointer', '__wasm_init_tls', '__tls_size', '__tls_align']);

const [file, wanted = '', ours = ''] = process.argv.slice(2);
const known = new Set(['env.memory', ...ours.split(',').map((name) => `sb.${name}`)]);
const bytes = readFileSync(file);
let at = 8;

function number() {
  for (let value = 0, shift = 0; ; shift += 7) {
    const byte = bytes[at++];
    value += (byte & 127) * 2 ** shift;
    if (byte < 128) return value;
  }
}
function name() {
  const length = number();
  return bytes.toString('utf8', at, (at += length));
}
function limits() {
  const flags = number();
  number();
  if (flags & 1) number();
}

const imports = [];
const exports = [];
while (at < bytes.length) {
  const section = bytes[at++];
  const size = number();
  const end = at + size;
  if (section === 2) {
    for (let n = number(); n > 0; n--) {
      imports.push(`${name()}.${name()}`);
      const kind = bytes[at++];
      if (kind === 0) number();
      else if (kind === 1) at++, limits();
      else if (kind === 2) limits();
      else if (kind === 3) at += 2;
    }
  } else if (section === 7) {
    for (let n = number(); n > 0; n--) {
      exports.push(name());
      at++;
      number();
    }
  }
  at = end;
}

const problems = [];
for (const entry of imports) {
  if (!known.has(entry)) problems.push(`imports ${entry}, which the page does not have`);
}
for (const entry of wanted.split(',').filter(Boolean)) {
  if (!exports.includes(entry)) problems.push(`lacks ${entry} of the C API`);
}
for (const entry of exports) {
  if (!entry.startsWith('sb_') && !TOOLCHAIN.has(entry)) problems.push(`exports ${entry}, which is not of the C API`);
}
for (const problem of problems) console.error(`${file} ${problem}`);
process.exit(problems.length ? 1 : 0);
