// y = cap · tanh(x / cap). A: x, stride, y, stride. B: D, cap.
fn stage$N(t: u32, l: u32) {
  let cap = bitcast<f32>($B.y);
  for (var i = first_column + l; i < min($B.x, end_column); i += 256u) { st($A.z + t * $A.w + i, cap * steady_tanh(ld($A.x + t * $A.y + i) / cap)); }
}
