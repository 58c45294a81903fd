// Writes a GGUF's Q4_1 tensors as Q4_0 or Q8_0, from their dequantised weights, as llama-quantize --allow-requantize does without an
// importance matrix (quantize_row_q4_0_ref, quantize_row_q8_0_ref; equal to PyPI gguf's quantize in every byte). All else stays.
// Done here because it is a page of code, while the peers' packages carry no llama-quantize.
import fs from 'node:fs';

import { TYPES, float_to_half, half_to_float, read_index } from './gguf.mjs';

const BLOCK = 32;

function read_q4_1(src, at, out) {
  const scale = half_to_float(src.getUint16(at, true)), least = half_to_float(src.getUint16(at + 2, true));
  for (let i = 0; i < 16; i++) {
    const byte = src.getUint8(at + 4 + i);
    out[i] = (byte & 15) * scale + least;
    out[i + 16] = (byte >> 4) * scale + least;
  }
}

const WRITE = {
  Q4_0(x, dst, at) {
    let peak = 0;
    for (const v of x) if (Math.abs(v) > Math.abs(peak)) peak = v;
    const scale = Math.fround(peak / -8), inverse = scale ? Math.fround(1 / scale) : 0;
    const level = (v) => Math.min(15, Math.trunc(Math.fround(Math.fround(v * inverse) + 8.5)));
    dst.setUint16(at, float_to_half(scale), true);
    for (let i = 0; i < 16; i++) dst.setUint8(at + 2 + i, level(x[i]) | (level(x[i + 16]) << 4));
  },
  Q8_0(x, dst, at) {
    let peak = 0;
    for (const v of x) peak = Math.max(peak, Math.abs(v));
    const scale = Math.fround(peak / 127), inverse = scale ? Math.fround(1 / scale) : 0;
    dst.setUint16(at, float_to_half(scale), true);
    for (let i = 0; i < BLOCK; i++) {
      const v = Math.fround(x[i] * inverse);
      dst.setInt8(at + 2 + i, Math.sign(v) * Math.round(Math.abs(v)));
    }
  },
};

/** from, to: file names; dtype: 'Q4_0' or 'Q8_0'. Returns how many tensors were rewritten. */
export function requantize(from, to, dtype) {
  const bytes = fs.readFileSync(from);
  const src = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { values, tensors, data_at, alignment } = read_index(src);
  const by_offset = [...tensors].sort((a, b) => a.offset - b.offset);
  by_offset.forEach((t, i) => { t.n_bytes = (by_offset[i + 1]?.offset ?? bytes.length - data_at) - t.offset; });
  const head = Buffer.from(bytes.subarray(0, data_at));
  const file_type = values.find((v) => v.name === 'general.file_type');
  if (file_type) head.writeUInt32LE(TYPES[dtype].file_type, file_type.value_at);
  const parts = [head], x = new Float32Array(BLOCK);
  let offset = 0, n_rewritten = 0;
  for (const t of by_offset) {
    let part = bytes.subarray(data_at + t.offset, data_at + t.offset + t.n_bytes);
    if (t.type === TYPES.Q4_1.id) {
      const n_blocks = t.n / BLOCK, size = TYPES[dtype].bytes;
      part = Buffer.alloc(Math.ceil((n_blocks * size) / alignment) * alignment);
      const dst = new DataView(part.buffer, part.byteOffset, part.length);
      for (let b = 0; b < n_blocks; b++) {
        read_q4_1(src, data_at + t.offset + b * TYPES.Q4_1.bytes, x);
        WRITE[dtype](x, dst, b * size);
      }
      head.writeUInt32LE(TYPES[dtype].id, t.type_at);
      n_rewritten++;
    }
    head.writeBigUInt64LE(BigInt(offset), t.offset_at);
    offset += part.length;
    parts.push(part);
  }
  const partial = `${to}.${process.pid}.partial`;
  fs.writeFileSync(partial, Buffer.concat(parts));
  fs.renameSync(partial, to);
  return n_rewritten;
}
