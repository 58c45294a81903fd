// Rows of sign planes (core/formats/planes.h), decoded in the rotated basis: sv[r] · c[k] · Σ_q Σ_p C[q][p] · S_p[…].
// P[3]: words a row, T, sv, c or none; P[4].x: the filter [J, P]; P[2].x: rows of the matrix before this tensor's.
@group(0) @binding(4) var<storage, read> W: array<u32>;

fn signs4(word: u32, k: u32) -> vec4f {
  let b = word >> ((k & 31u) >> 2u);
  return vec4f(vec4u(b, b >> 8u, b >> 16u, b >> 24u) & vec4u(1u)) * 2.0 - 1.0;
}
fn column_scale4(at: u32, k: u32) -> vec4f {
  if (at == kNone) { return vec4f(1.0); }
  return vec4f(vec_at(at + k), vec_at(at + k + 1u), vec_at(at + k + 2u), vec_at(at + k + 3u));
}
fn load4(r: u32, k: u32) -> vec4f {
  let m = P[3];
  let first = r / m.y * m.y;
  var v = vec4f(0.0);
  for (var q = 0u; q < $TAPS; q++) {
    let row = first + (r - first + m.y - q) % m.y;
    for (var p = 0u; p < $PLANES; p++) {
      v += vec_at(P[4].x + q * $PLANES + p) * signs4(W[(row * $PLANES + p) * m.x + (k >> 5u)], k);
    }
  }
  return v * vec_at(m.z + r) * column_scale4(m.w, k);
}
