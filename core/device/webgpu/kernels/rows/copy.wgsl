// y = x. A: x, stride, y, stride. B: D.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = first + l; i < min($B.x, end); i += 256u) { arena[$A.z + t * $A.w + i] = arena[$A.x + t * $A.y + i]; }
}
