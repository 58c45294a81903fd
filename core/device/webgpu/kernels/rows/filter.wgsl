// y[r] = sv[r] · Σ_q Σ_p C[q][p] · z_p[s + ((r − s − q) mod T)] + bias. A: z, stride, y, stride. B: N, first row, T, bias or none.
// C: sv, C, 1 to add to y, columns of the chain: those of y are once or several times as many. $SUM: the taps, one after the other.
fn stage$N(t: u32, l: u32) {
  for (var i = first_column + l; i < min($C.w, end_column); i += 256u) {
    for (var j = i; j < $B.x; j += $C.w) {
      let r = $B.y + j;
      let o = r % $B.z;
      let z = $A.x + t * $A.y + (r - o) * $PLANES;
      var sum = 0.0;
      $SUM
      var y = sum * vec_at($C.x + r);
      if ($B.w != kNone) { y += vec_at($B.w + j); }
      let at = $A.z + t * $A.w + j;
      if ($C.z != 0u) { y += ld(at); }
      st(at, y);
    }
  }
}
