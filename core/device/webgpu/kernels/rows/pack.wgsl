// x̃ = c ⊙ Had(su ⊙ x) in 8 bits with a scale per 128 inputs: K/4 words of four, then the scales, then Σ x̃ as rounded.
// A: x, stride, packed, stride. B: K, padded K, su or none, c or none.
fn stage$N(t: u32, l: u32) {
  let to = $A.z + t * $A.w;
  let scales = to + $B.y / 4u;
  let n_scales = ($B.y + 127u) / 128u;
  var sum = 0.0;
  for (var k0 = 0u; k0 < $B.y; k0 += 2048u) {
    let k = k0 + l * 8u;
    for (var i = 0u; i < 8u; i++) {
      e[i] = 0.0;
      if (k + i < $B.x) {
        e[i] = ld($A.x + t * $A.y + k + i);
        if ($B.z != kNone) { e[i] *= sign_at($B.z, k + i); }
      }
    }
    $HADAMARD
    var most = 0.0;
    for (var i = 0u; i < 8u; i++) {
      if (k < $B.y && $B.w != kNone) { e[i] *= vec_at($B.w + k + i); }
      // max() may drop what is no number; a token with one must show it.
      most = select(most + abs(e[i]), max(most, abs(e[i])), abs(e[i]) <= 3.4028234e38 && most <= 3.4028234e38);
    }
    part[l] = most;
    workgroupBarrier();
    let first = l & 240u;
    for (var i = 0u; i < 16u; i++) {
      let other = part[first + i];
      most = select(most + other, max(most, other), other <= 3.4028234e38 && most <= 3.4028234e38);
    }
    workgroupBarrier();
    let scale = most / 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 1.0e-37);
    var q: array<i32, 8>;
    var whole = 0;
    for (var i = 0u; i < 8u; i++) {
      q[i] = i32(round(clamp(e[i] * inverse, -127.0, 127.0)));
      whole += q[i];
    }
    if (k < $B.y) {
      for (var i = 0u; i < 8u; i += 4u) {
        arena[to + (k + i) / 4u] = (bitcast<u32>(q[i]) & 255u) | ((bitcast<u32>(q[i + 1u]) & 255u) << 8u) |
                                   ((bitcast<u32>(q[i + 2u]) & 255u) << 16u) | (bitcast<u32>(q[i + 3u]) << 24u);
      }
      if ((l & 15u) == 0u) { st(scales + k / 128u, scale); }
      sum += scale * f32(whole);
    }
  }
  part[l] = sum;
  workgroupBarrier();
  for (var s = 128u; s > 0u; s >>= 1u) {
    if (l < s) { part[l] += part[l + s]; }
    workgroupBarrier();
  }
  if (l == 0u) { st(scales + n_scales, part[0]); }
  workgroupBarrier();
}
