// x̃ = c ⊙ Had(su ⊙ x) in 8 bits with a scale per $BLOCK inputs: K/4 words of four, then the scales, then Σ x̃ of each block as rounded.
// A: x, stride, packed, stride. B: K, padded K, su or none, c or none.
fn larger$N(a: f32, b: f32) -> f32 {
  // max() may drop what is no number; a token with one must show it.
  return select(a + b, max(a, b), a <= 3.4028234e38 && b <= 3.4028234e38);
}
fn word$N(q: vec4i) -> u32 {
  let b = bitcast<vec4u>(q) & vec4u(255u);
  return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}
fn stage$N(t: u32, l: u32) {
  let to = $A.z + t * $A.w;
  let scales = to + $B.y / 4u;
  let wholes = scales + ($B.y + $BLOCK - 1u) / $BLOCK;
  let lanes = $BLOCK / 8u;
  let end = min($B.y, end_column);
  for (var k0 = first_column; k0 < end; k0 += 2048u) {
    let k = k0 + l * 8u;
    e0 = ld4($A.x + t * $A.y, k, min($B.x, end));
    e1 = ld4($A.x + t * $A.y, k + 4u, min($B.x, end));
    if ($B.z != kNone && k < end) {
      e0 *= signs_at($B.z, k);
      e1 *= signs_at($B.z, k + 4u);
    }
    $HADAMARD
    if ($B.w != kNone && k < end) {
      let c = $B.w + k;
      e0 *= vec4f(vec_at(c), vec_at(c + 1u), vec_at(c + 2u), vec_at(c + 3u));
      e1 *= vec4f(vec_at(c + 4u), vec_at(c + 5u), vec_at(c + 6u), vec_at(c + 7u));
    }
    let a0 = abs(e0);
    let a1 = abs(e1);
    var most = larger$N(larger$N(larger$N(a0.x, a0.y), larger$N(a0.z, a0.w)), larger$N(larger$N(a1.x, a1.y), larger$N(a1.z, a1.w)));
    part[l] = most;
    workgroupBarrier();
    let first = l / lanes * lanes;
    for (var i = 0u; i < lanes; i++) { most = larger$N(most, part[first + i]); }
    workgroupBarrier();
    let scale = most / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 1.0e-37);
    let q0 = vec4i(round(clamp(e0 * inverse, vec4f(-127.0), vec4f(127.0))));
    let q1 = vec4i(round(clamp(e1 * inverse, vec4f(-127.0), vec4f(127.0))));
    let both = q0 + q1;
    part[l] = f32(both.x + both.y + both.z + both.w);
    workgroupBarrier();
    if (k < end) {
      arena[to + k / 4u] = word$N(q0);
      arena[to + k / 4u + 1u] = word$N(q1);
      if (l == first) {
        var whole = 0.0;
        for (var i = 0u; i < lanes; i++) { whole += part[first + i]; }
        st(scales + k / $BLOCK, scale);
        st(wholes + k / $BLOCK, scale * whole);
      }
    }
    workgroupBarrier();
  }
}
