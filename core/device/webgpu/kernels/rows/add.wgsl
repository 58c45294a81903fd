// y = a + b. A: a, stride, b, stride. B: y, stride, D.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = first + l; i < min($B.z, end); i += 256u) { st($B.x + t * $B.y + i, ld($A.x + t * $A.y + i) + ld($A.z + t * $A.w + i)); }
}
