// {32 bytes of third bits, 64 bytes of 2-bit values, 12 bytes of 6-bit scales, f16 d}
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 256u * 110u;
  let group = (k & 255u) >> 4u;
  let low = (byte_at(b + 96u + (group & 7u)) >> (group / 8u * 4u)) & 15u;
  let scale = i32(low | (((byte_at(b + 104u + (group & 3u)) >> (group / 4u * 2u)) & 3u) << 4u)) - 32;
  let half = (group & 1u) * 16u + (k & 15u);
  let q = word_at(b + 32u + group / 8u * 32u + half) >> ((group & 7u) / 2u * 2u);
  let third = word_at(b + half) >> (group / 2u);
  return (bytes_of(q & 0x03030303u) + bytes_of((third & 0x01010101u) << 2u) - 4.0) * (half_at(b + 108u) * f32(scale));
}
