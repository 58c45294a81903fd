// What the bench knows of GGUF files: where their values and tensors lie, how a type's blocks are laid out, float16.
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]; // by value type; 8 is a string, 9 an array
const MAGIC = 0x46554747;

/** Types: their number in a file, weights and bytes a block, `general.file_type`, and where a block has its float16 scales: [byte, share of the first]. */
export const TYPES = {
  F32: { id: 0, weights: 1, bytes: 4 },
  Q4_0: { id: 2, weights: 32, bytes: 18, file_type: 2, scales: [[0, 1]] },
  Q4_1: { id: 3, weights: 32, bytes: 20, file_type: 3, scales: [[0, 1], [2, -7.5]] },
  Q8_0: { id: 8, weights: 32, bytes: 34, file_type: 7, scales: [[0, 1]] },
  Q2_K: { id: 10, weights: 256, bytes: 84, file_type: 10, scales: [[80, 1], [82, 1.5]] },
  Q4_K: { id: 12, weights: 256, bytes: 144, file_type: 15, scales: [[0, 1], [2, 7.5]] },
  Q6_K: { id: 14, weights: 256, bytes: 210, file_type: 18, scales: [[208, 1]] },
};

const f32 = new Float32Array(1), u32 = new Uint32Array(f32.buffer);

export function half_to_float(h) {
  const exponent = (h >> 10) & 31, mantissa = h & 1023, sign = h & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

export function float_to_half(x) { // round to nearest even
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

/** Walks header, metadata and tensor table; keeps where things lie, not what they say: values {name, from, value_at, to}, tensors
 * {name, n, type, type_at, offset, offset_at}, data_at, alignment. */
export function read_index(view) {
  let at = 0;
  const u32_at = () => view.getUint32((at += 4) - 4, true);
  const u64_at = () => Number(view.getBigUint64((at += 8) - 8, true));
  const string_at = () => { const n = u64_at(); at += n; return Buffer.from(view.buffer, view.byteOffset + at - n, n).toString(); };
  const skip = (type) => {
    if (type === 8) string_at();
    else if (type === 9) { const inner = u32_at(), n = u64_at(); for (let i = 0; i < n; i++) skip(inner); }
    else at += VALUE_BYTES[type];
  };
  if (u32_at() !== MAGIC) throw new Error('not a GGUF file');
  u32_at();
  const n_tensors = u64_at(), n_values = u64_at();
  const values = [];
  let alignment = 32;
  for (let i = 0; i < n_values; i++) {
    const from = at, name = string_at(), type = u32_at(), value_at = at;
    if (name === 'general.alignment') alignment = view.getUint32(at, true);
    skip(type);
    values.push({ name, from, value_at, to: at });
  }
  const tensors = [];
  for (let i = 0; i < n_tensors; i++) {
    const name = string_at(), n_dims = u32_at();
    let n = 1;
    for (let d = 0; d < n_dims; d++) n *= u64_at();
    const type_at = at, type = u32_at(), offset_at = at, offset = u64_at();
    tensors.push({ name, n, type, type_at, offset, offset_at });
  }
  return { values, tensors, data_at: Math.ceil(at / alignment) * alignment, alignment };
}
