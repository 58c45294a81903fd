// x̃ = Had(su ⊙ x), padded with zeros to whole words. A: x, stride, y, stride. B: K, padded K, su or none.
fn stage$N(t: u32, l: u32) {
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
    if (k < $B.y) {
      for (var i = 0u; i < 8u; i++) { st($A.z + t * $A.w + k + i, e[i]); }
    }
  }
}
