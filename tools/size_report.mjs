#!/usr/bin/env node
// What a page downloads before its first model: the engine's JavaScript and one WebAssembly module, brotli 11 as a static host serves it.
// usage: size_report.mjs [--limit] FILE…   each .wasm is counted once with all the .js together; --limit fails above the goal.
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const GOAL_KB = 470;

function brotliBytes(file) {
  const bytes = readFileSync(file);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  return { raw: bytes.length, packed: brotliCompressSync(bytes, { params }).length };
}

const kb = (n) => `${(n / 1000).toFixed(1)} KB`;
const args = process.argv.slice(2);
const files = args.filter((arg) => !arg.startsWith('--') && existsSync(arg));
let scripts = 0;
let largest = 0;
const modules = [];
for (const file of files) {
  const { raw, packed } = brotliBytes(file);
  console.log(`${basename(file).padEnd(32)} ${kb(raw).padStart(11)}  brotli ${kb(packed).padStart(9)}`);
  if (file.endsWith('.wasm')) modules.push([file, packed]);
  else scripts += packed;
}
for (const [file, packed] of modules) {
  const total = scripts + packed;
  largest = Math.max(largest, total);
  if (scripts) console.log(`engine JavaScript + ${basename(file)}: ${kb(total)} brotli of ${GOAL_KB} KB`);
}
if (args.includes('--limit') && largest > GOAL_KB * 1000) {
  console.error(`The payload is ${kb(largest - GOAL_KB * 1000)} above its goal.`);
  process.exit(1);
}
