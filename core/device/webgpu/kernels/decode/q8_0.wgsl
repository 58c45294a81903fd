// {f16 d, 32 × int8}
fn load4(row: u32, k: u32) -> vec4f {
  let b = row + k / 32u * 34u;
  let q = bitcast<vec4i>(vec4u(word_at(b + 2u + (k & 31u))) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u);
  return vec4f(q) * half_at(b);
}
