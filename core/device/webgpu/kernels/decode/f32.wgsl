fn load4(row: u32, k: u32) -> vec4f {
  let i = (row >> 2u) + k;
  return bitcast<vec4f>(vec4u(W[i], W[i + 1u], W[i + 2u], W[i + 3u]));
}
