// The refinement's planes, which add up with the base's. P[5]: sv, c or none, filter.
@group(0) @binding(5) var<storage, read> W2: array<u32>;

fn load4_both(r: u32, k: u32) -> vec4f {
  let m = P[3];
  let first = r / m.y * m.y;
  var v = vec4f(0.0);
  for (var q = 0u; q < $TAPS2; q++) {
    let row = first + (r - first + m.y - q) % m.y;
    for (var p = 0u; p < $PLANES2; p++) {
      v += vec_at(P[5].z + q * $PLANES2 + p) * signs4(W2[(row * $PLANES2 + p) * m.x + (k >> 5u)], k);
    }
  }
  return load4(r, k) + v * vec_at(P[5].x + r) * column_scale4(P[5].y, k);
}
