// y = cap · tanh(x / cap). A: x, stride, y, stride. B: D, cap.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  let cap = bitcast<f32>($B.y);
  for (var i = first + l; i < min($B.x, end); i += 256u) { st($A.z + t * $A.w + i, cap * steady_tanh(ld($A.x + t * $A.y + i) / cap)); }
}
