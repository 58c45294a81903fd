// Writes a GGUF's Q4_1 tensors as Q4_0 or Q8_0, from their dequantised weights, as llama-quantize --allow-requantize does without an
// importance matrix (quantize_row_q4_0_ref, quantize_row_q8_0_ref; equal to PyPI gguf's quantize in every byte). All else stays.
// Done here because it is a page of code, while the peers' packages carry no llama-quantize.
import fs from 'node:fs';

const TYPES = { Q4_0: { id: 2, bytes: 18, file_type: 2 }, Q4_1: { id: 3, bytes: 20 }, Q8_0: { id: 8, bytes: 34, file_type: 7 } };
const BLOCK = 32;
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]; // by GGUF value type; 8 is a string, 9 an array

const f32 = new Float32Array(1), u32 = new Uint32Array(f32.buffer);

function half_to_float(h) {
  const exponent = (h >> 10) & 31, mantissa = h & 1023, sign = h & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

function float_to_half(x) { // round to nearest even
  f32[0] = x;
  const bits = u32[0], sign = (bits >>> 16) & 0x8000, abs = bits & 0x7fffffff;
  if (abs >= 0x47800000) return sign | 0x7c00;
  if (abs < 0x38800000) { // subnormal half: scale so that one unit is 2^-24
    const scaled = Math.abs(x) * 2 ** 24, low = Math.floor(scaled), rest = scaled - low;
    return sign | (low + (rest > 0.5 || (rest === 0.5 && low % 2) ? 1 : 0));
  }
  const kept = (abs - 0x38000000) >>> 13, rest = abs & 0x1fff;
  return sign | (kept + (rest > 0x1000 || (rest === 0x1000 && kept % 2) ? 1 : 0));
}

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

/** Walks header, metadata and tensor table; keeps where things lie, not what they say. */
function read_index(view) {
  let at = 0;
  const u32_at = () => view.getUint32((at += 4) - 4, true);
  const u64_at = () => Number(view.getBigUint64((at += 8) - 8, true));
  const string_at = () => { const n = u64_at(); at += n; return Buffer.from(view.buffer, view.byteOffset + at - n, n).toString(); };
  const skip = (type) => {
    if (type === 8) string_at();
    else if (type === 9) { const inner = u32_at(), n = u64_at(); for (let i = 0; i < n; i++) skip(inner); }
    else at += VALUE_BYTES[type];
  };
  if (u32_at() !== 0x46554747) throw new Error('not a GGUF file');
  u32_at();
  const n_tensors = u64_at(), n_values = u64_at();
  let file_type_at = 0, alignment = 32;
  for (let i = 0; i < n_values; i++) {
    const name = string_at(), type = u32_at();
    if (name === 'general.file_type') file_type_at = at;
    if (name === 'general.alignment') alignment = view.getUint32(at, true);
    skip(type);
  }
  const tensors = [];
  for (let i = 0; i < n_tensors; i++) {
    const name = string_at(), n_dims = u32_at();
    let n = 1;
    for (let d = 0; d < n_dims; d++) n *= u64_at();
    const type_at = at, type = u32_at(), offset_at = at, offset = u64_at();
    tensors.push({ name, n, type, type_at, offset, offset_at });
  }
  const data_at = Math.ceil(at / alignment) * alignment;
  return { tensors, data_at, file_type_at, alignment };
}

/** from, to: file names; dtype: 'Q4_0' or 'Q8_0'. Returns how many tensors were rewritten. */
export function requantize(from, to, dtype) {
  const bytes = fs.readFileSync(from);
  const src = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { tensors, data_at, file_type_at, alignment } = read_index(src);
  const by_offset = [...tensors].sort((a, b) => a.offset - b.offset);
  by_offset.forEach((t, i) => { t.n_bytes = (by_offset[i + 1]?.offset ?? bytes.length - data_at) - t.offset; });
  const head = Buffer.from(bytes.subarray(0, data_at));
  if (file_type_at) head.writeUInt32LE(TYPES[dtype].file_type, file_type_at);
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
