// {f16 d, u32 fifth bits, nibbles}
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 32u * 22u;
  let q = (word_at(b + 6u + (k & 15u)) >> ((k >> 2u) & 4u)) & 0x0f0f0f0fu;
  let high = word_at(b + 2u) >> (k & 31u);
  let fifth = vec4u(high << 4u, high << 3u, high << 2u, high << 1u) & vec4u(16u);
  return (bytes_of(q) + vec4f(fifth) - 16.0) * half_at(b);
}
