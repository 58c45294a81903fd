// y = (x − mean) / sqrt(var + eps) · g + b. A: x, stride, y, stride. B: D, g, b, eps.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  let x = $A.x + t * $A.y;
  var sum = 0.0;
  for (var i = l; i < $B.x; i += 256u) { sum += ld(x + i); }
  part[l] = sum;
  workgroupBarrier();
  for (var s = 128u; s > 0u; s >>= 1u) {
    if (l < s) { part[l] += part[l + s]; }
    workgroupBarrier();
  }
  let mean = part[0] / f32($B.x);
  workgroupBarrier();
  var squares = 0.0;
  for (var i = l; i < $B.x; i += 256u) {
    let d = ld(x + i) - mean;
    squares += d * d;
  }
  part[l] = squares;
  workgroupBarrier();
  for (var s = 128u; s > 0u; s >>= 1u) {
    if (l < s) { part[l] += part[l + s]; }
    workgroupBarrier();
  }
  let scale = 1.0 / sqrt(part[0] / f32($B.x) + bitcast<f32>($B.w));
  for (var i = l; i < $B.x; i += 256u) { st($A.z + t * $A.w + i, (ld(x + i) - mean) * scale * vec_at($B.y + i) + vec_at($B.z + i)); }
  workgroupBarrier();
}
