// {f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles}: 8 groups of 32.
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 256u * 144u;
  let group = (k & 255u) >> 5u;
  let q = word_at(b + 16u + group / 2u * 32u + (k & 31u)) >> ((group & 1u) * 4u);
  let d = unpack2x16float(word_at(b));
  let s = scale_min(b + 4u, group);
  return bytes_of(q & 0x0f0f0f0fu) * (d.x * s.x) - d.y * s.y;
}
