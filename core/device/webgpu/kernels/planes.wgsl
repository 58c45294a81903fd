// Rows of sign planes (core/formats/planes.h), decoded in the rotated basis. P[2].x: rows of the matrix before this tensor's; P[3]: words a
// row, T; P[4] and, for the refinement, P[5]: sv, c or none, the filter [J, P].
fn signs4(word: u32, k: u32) -> vec4f {
  let b = word >> ((k & 31u) >> 2u);
  return vec4f(vec4u(b, b >> 8u, b >> 16u, b >> 24u) & vec4u(1u)) * 2.0 - 1.0;
}
fn column_scale4(at: u32, k: u32) -> vec4f {
  if (at == kNone) { return vec4f(1.0); }
  return vec4f(vec_at(at + k), vec_at(at + k + 1u), vec_at(at + k + 2u), vec_at(at + k + 3u));
}
fn load4(r: u32, k: u32) -> vec4f { return $SETS; }
