// What a page downloads, as a static host serves it: each file by itself, brotli at its best.
import fs from 'node:fs';
import zlib from 'node:zlib';

export function brotli_bytes(files) {
  return files.reduce((sum, f) => {
    const bytes = fs.readFileSync(f);
    const params = { [zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_LGWIN]: 24, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
    return sum + zlib.brotliCompressSync(bytes, { params }).length;
  }, 0);
}
