// y = act(x). A: x, stride, y, stride. B: D.
fn stage$N(t: u32, l: u32) {
  for (var i = l; i < $B.x; i += 256u) { st($A.z + t * $A.w + i, $ACT(ld($A.x + t * $A.y + i))); }
}
