// {f16 d, f16 m, nibbles}
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 32u * 20u;
  let scale = unpack2x16float(word_at(b));
  let q = word_at(b + 4u + (k & 15u)) >> ((k >> 2u) & 4u);
  return bytes_of(q & 0x0f0f0f0fu) * scale.x + scale.y;
}
