fn load4(row: u32, k: u32) -> vec4f {
  let a = word_at(row + 2u * k);
  let b = word_at(row + 2u * k + 4u);
  return bitcast<vec4f>(vec4u(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
