// What the splits of attention_one.wgsl leave of a head, put together: each has Σ w·v, Σ w, and the score that its weights w = exp(score −
// highest) are counted from. A split without keys has no weight.
// P[0]: y, what splits leave. From P[1] on the packing of the product behind.
const dh = $DH;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let h = group.x;
  let t = 0u;
  let base = P[0].y + h * step.n_splits * (dh + 2u);
  var highest = -3.0e38;
  for (var s = 0u; s < step.n_splits; s++) { highest = max(highest, ld(base + s * (dh + 2u) + dh + 1u)); }
  if (l < dh) {
    var y = 0.0;
    var all = 0.0;
    for (var s = 0u; s < step.n_splits; s++) {
      let at = base + s * (dh + 2u);
      let w = exp(ld(at + dh + 1u) - highest);
      y += w * ld(at + l);
      all += w * ld(at + dh);
    }
    st(P[0].x + h * dh + l, y / all);
  }
  $PACK
}
