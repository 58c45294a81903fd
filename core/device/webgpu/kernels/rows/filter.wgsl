// y[r] = sv[r] · Σ_q Σ_p C[q][p] · z_p[s + ((r − s − q) mod T)] + bias. A: z, stride, y, stride. B: N, first row, T, bias or none.
// C: sv, C, 1 to add to y.
fn stage$N(t: u32, l: u32) {
  for (var i = l; i < $B.x; i += 256u) {
    let r = $B.y + i;
    let first = r / $B.z * $B.z;
    var sum = 0.0;
    for (var q = 0u; q < $TAPS; q++) {
      let row = first + (r - first + $B.z - q) % $B.z;
      for (var p = 0u; p < $PLANES; p++) { sum += vec_at($C.y + q * $PLANES + p) * ld($A.x + t * $A.y + row * $PLANES + p); }
    }
    var y = sum * vec_at($C.x + r);
    if ($B.w != kNone) { y += vec_at($B.w + i); }
    let at = $A.z + t * $A.w + i;
    if ($C.z != 0u) { y += ld(at); }
    st(at, y);
  }
}
