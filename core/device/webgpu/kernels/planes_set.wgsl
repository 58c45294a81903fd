// One set of planes: sv[r] · c[k] · Σ_q Σ_p C[q][p] · S_p[s + ((r − s − q) mod T), k].
@group(0) @binding($BINDING) var<storage, read> planes$SET: array<u32>;

fn set$SET(r: u32, k: u32) -> vec4f {
  let m = P[3];
  let scales = P[$SCALES];
  let first = r / m.y * m.y;
  var v = vec4f(0.0);
  for (var q = 0u; q < $TAPS; q++) {
    let row = first + (r - first + m.y - q) % m.y;
    for (var p = 0u; p < $PLANES; p++) {
      v += vec_at(scales.z + q * $PLANES + p) * signs4(planes$SET[(row * $PLANES + p) * m.x + (k >> 5u)], k);
    }
  }
  return v * vec_at(scales.x + r) * column_scale4(scales.y, k);
}
