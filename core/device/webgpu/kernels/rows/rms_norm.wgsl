// y = x / sqrt(mean(x²) + eps) · (offset + g), over runs of `width`. A: x, stride, y, stride. B: D, g, width, eps. C: offset.
// $LANES lanes work on a run.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  let width = $B.z;
  let lane = l % $LANES;
  for (var at = 0u; at < $B.x; at += width * (256u / $LANES)) {
    let run = at + l / $LANES * width;
    var squares = 0.0;
    if (run < $B.x) {
      for (var i = lane; i < width; i += $LANES) {
        let x = ld($A.x + t * $A.y + run + i);
        squares += x * x;
      }
    }
    part[l] = squares;
    workgroupBarrier();
    for (var s = $LANES / 2u; s > 0u; s >>= 1u) {
      if (lane < s) { part[l] += part[l + s]; }
      workgroupBarrier();
    }
    if (run < $B.x) {
      let scale = 1.0 / sqrt(part[l - lane] / f32(width) + bitcast<f32>($B.w));
      for (var i = lane; i < width; i += $LANES) {
        st($A.z + t * $A.w + run + i, ld($A.x + t * $A.y + run + i) * scale * (bitcast<f32>($C.x) + vec_at($B.y + i)));
      }
    }
    workgroupBarrier();
  }
}
