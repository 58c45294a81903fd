// y = scale · row of a matrix of planes, turned back, for ids among the rows of this piece. A: ids or none, y, stride, D.
// B: row of id 0 in the piece (it may be below 0), rows, su or none, scale.
fn stage$N(t: u32, l: u32) {
  var id = step.position + t;
  if ($A.x != kNone) { id = arena[$A.x + t]; }
  let r = $B.x + id;
  for (var k0 = 0u; k0 < $A.w; k0 += 2048u) {
    let k = k0 + l * 8u;
    for (var i = 0u; i < 8u; i += 4u) {
      var w = vec4f(0.0);
      if (k < P[3].x * 32u && r < $B.y) { w = $LOAD(r, k + i); }
      for (var j = 0u; j < 4u; j++) { e[i + j] = w[j]; }
    }
    $HADAMARD
    for (var i = 0u; i < 8u; i++) {
      if (k + i < $A.w && r < $B.y) {
        if ($B.z != kNone) { e[i] *= sign_at($B.z, k + i); }
        st($A.y + t * $A.z + k + i, e[i] * bitcast<f32>($B.w));
      }
    }
  }
}
