// y = act(x). A: x, stride, y, stride. B: D.
fn stage$N(t: u32, l: u32) {
  for (var i = first_column + l; i < min($B.x, end_column); i += 256u) { st($A.z + t * $A.w + i, $ACT(ld($A.x + t * $A.y + i))); }
}
