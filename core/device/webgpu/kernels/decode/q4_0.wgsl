// {f16 d, 16 × two nibbles}: low nibbles are elements 0 … 15, high ones 16 … 31.
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 32u * 18u;
  let q = word_at(b + 2u + (k & 15u)) >> ((k >> 2u) & 4u);
  return (bytes_of(q & 0x0f0f0f0fu) - 8.0) * half_at(b);
}
