// {128 bytes of nibbles, 64 bytes of high bit pairs, 16 × int8 scale, f16 d}: halves of 128, in each four runs of 32.
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 256u * 210u;
  let run = (k & 255u) >> 5u;
  let l = k & 31u;
  let low = (word_at(b + run / 4u * 64u + (run & 1u) * 32u + l) >> ((run & 3u) / 2u * 4u)) & 0x0f0f0f0fu;
  let high = (word_at(b + 128u + run / 4u * 32u + l) >> ((run & 3u) * 2u)) & 0x03030303u;
  let scale = bitcast<i32>(byte_at(b + 192u + run * 2u + l / 16u) << 24u) >> 24u;
  return (bytes_of(low | (high << 4u)) - 32.0) * (half_at(b + 208u) * f32(scale));
}
