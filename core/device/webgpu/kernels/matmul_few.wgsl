// y[t] = x[t] · Wᵀ + bias for few tokens: sixteen lanes a row, four rows a workgroup, a token a row of workgroups.
// P[0]: x, its stride, y, its stride. P[1]: N, K, bias or none, first row of y. P[2]: see $ROW.
var<workgroup> part: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let lane = l & 15u;
  let n = (group.z * 32768u + group.x) * 4u + (l >> 4u);
  let t = group.y;
  let k_end = P[1].y;
  let x = P[0].x + t * P[0].y;
  var sum = 0.0;
  if (n < P[1].x) {
    let row = $ROW;
    for (var k = lane * 4u; k < k_end; k += 64u) {
      var w = load4(row, k);
      if (k + 4u > k_end) { w = select(vec4f(0.0), w, vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(k_end)); }
      // Past the end of a row lies something else, perhaps no number.
      let last = k_end - 1u;
      sum += dot(w, vec4f(ld(x + k), ld(x + min(k + 1u, last)), ld(x + min(k + 2u, last)), ld(x + min(k + 3u, last))));
    }
  }
  part[l] = sum;
  workgroupBarrier();
  for (var s = 8u; s > 0u; s >>= 1u) {
    if (lane < s) { part[l] += part[l + s]; }
    workgroupBarrier();
  }
  if (lane == 0u && n < P[1].x) {
    var y = part[l];
    if (P[1].z != kNone) { y += vec_at(P[1].z + n); }
    st(P[0].z + t * P[0].w + P[1].w + n, y);
  }
}
