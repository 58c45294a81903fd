// {f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles}
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 256u * 176u;
  let group = (k & 255u) >> 5u;
  let q = word_at(b + 48u + group / 2u * 32u + (k & 31u)) >> ((group & 1u) * 4u);
  let fifth = word_at(b + 16u + (k & 31u)) >> group;
  let d = unpack2x16float(word_at(b));
  let s = scale_min(b + 4u, group);
  return (bytes_of(q & 0x0f0f0f0fu) + bytes_of((fifth & 0x01010101u) << 4u)) * (d.x * s.x) - d.y * s.y;
}
