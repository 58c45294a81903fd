// {16 × (4-bit scale, 4-bit min), 64 bytes of 2-bit values, f16 d, f16 dmin}: 16 groups of 16.
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 256u * 84u;
  let group = (k & 255u) >> 4u;
  let q = word_at(b + 16u + group / 8u * 32u + (group & 1u) * 16u + (k & 15u)) >> ((group & 7u) / 2u * 2u);
  let scale = byte_at(b + group);
  let d = unpack2x16float(word_at(b + 80u));
  return bytes_of(q & 0x03030303u) * (d.x * f32(scale & 15u)) - d.y * f32(scale >> 4u);
}
