// y = scale · row of a matrix of planes, turned back, for ids among the rows of this piece. A: ids or none, y, stride, D.
// B: row of id 0 in the piece (it may be below 0), rows, su or none, scale.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  var id = step.position + t;
  if ($A.x != kNone) { id = arena[$A.x + t]; }
  let r = $B.x + id;
  for (var k0 = 0u; k0 < $A.w; k0 += 2048u) {
    let k = k0 + l * 8u;
    let is_there = k < P[3].x * 32u && r < $B.y;
    e0 = vec4f(0.0);
    e1 = vec4f(0.0);
    if (is_there) {
      e0 = load4(r, k);
      e1 = load4(r, k + 4u);
    }
    $HADAMARD
    if (is_there) {
      if ($B.z != kNone) {
        e0 *= signs_at($B.z, k);
        e1 *= signs_at($B.z, k + 4u);
      }
      let y = $A.y + t * $A.z;
      st4(y, k, $A.w, e0 * bitcast<f32>($B.w));
      st4(y, k + 4u, $A.w, e1 * bitcast<f32>($B.w));
    }
  }
}
