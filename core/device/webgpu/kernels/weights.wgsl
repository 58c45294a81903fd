// Stored matrices as words. Rows of GGUF blocks begin at any even byte.
@group(0) @binding(4) var<storage, read> W: array<u32>;

fn word_at(byte: u32) -> u32 {
  let i = byte >> 2u;
  let shift = (byte & 3u) * 8u;
  if (shift == 0u) { return W[i]; }
  return (W[i] >> shift) | (W[i + 1u] << (32u - shift));
}
fn byte_at(byte: u32) -> u32 { return (W[byte >> 2u] >> ((byte & 3u) * 8u)) & 255u; }
fn u16_at(byte: u32) -> u32 { return (W[byte >> 2u] >> ((byte & 3u) * 8u)) & 65535u; }  // byte is even
fn half_at(byte: u32) -> f32 { return unpack2x16float(u16_at(byte)).x; }
fn bytes_of(w: u32) -> vec4f { return vec4f(vec4u(w, w >> 8u, w >> 16u, w >> 24u) & vec4u(255u)); }
// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes.
fn scale_min(at: u32, j: u32) -> vec2f {
  if (j < 4u) { return vec2f(f32(byte_at(at + j) & 63u), f32(byte_at(at + j + 4u) & 63u)); }
  let both = byte_at(at + j + 4u);
  return vec2f(f32((both & 15u) | ((byte_at(at + j - 4u) >> 6u) << 4u)), f32((both >> 4u) | ((byte_at(at + j) >> 6u) << 4u)));
}
