// x̃ = Had(su ⊙ x), padded with zeros to whole words. A: x, stride, y, stride. B: K, padded K, su or none.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var k0 = 0u; k0 < $B.y; k0 += 2048u) {
    let k = k0 + l * 8u;
    e0 = ld4($A.x + t * $A.y, k, $B.x);
    e1 = ld4($A.x + t * $A.y, k + 4u, $B.x);
    if ($B.z != kNone && k < $B.y) {
      e0 *= signs_at($B.z, k);
      e1 *= signs_at($B.z, k + 4u);
    }
    $HADAMARD
    st4($A.z + t * $A.w, k, $B.y, e0);
    st4($A.z + t * $A.w, k + 4u, $B.y, e1);
  }
}
