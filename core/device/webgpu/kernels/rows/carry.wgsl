// Adds to a product of planes what its blocks' first rows lack (carry.wgsl). A: y, stride, N, carry. B: its stride, rows before row 0, blocks
// a segment.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = first + l; i < min($A.z, end); i += 256u) {
    let at = $A.x + t * $A.y + i;
    st(at, ld(at) + carry_at(vec4u($A.w + t * $B.x, $B.y, $B.z, 0u), i));
  }
}
