// y = act(x). A: x, stride, y, stride. B: D.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = first + l; i < min($B.x, end); i += 256u) { st($A.z + t * $A.w + i, $ACT(ld($A.x + t * $A.y + i))); }
}
