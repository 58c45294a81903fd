// y = scale · table[id], for ids among the rows of this piece. A: ids or none (by position), y, stride, D. B: first row, rows, bytes a row,
// scale.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  var id = step.position + t;
  if ($A.x != kNone) { id = arena[$A.x + t]; }
  let r = id - $B.x;
  if (r < $B.y) {
    for (var k = l * 4u; k < $A.w; k += 1024u) {
      let w = load4(r * $B.z, k) * bitcast<f32>($B.w);
      for (var i = 0u; i < 4u; i++) {
        if (k + i < $A.w) { st($A.y + t * $A.z + k + i, w[i]); }
      }
    }
  }
}
