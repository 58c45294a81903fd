// softmax(scale · q·kᵀ, causal, last `window` keys) · v, one workgroup a head and token, 64 keys at a time (online softmax, Milakov &
// Gimelshein 2018): a thread scores one key, then sums some of the head's elements over the keys.
// P[0]: q, its stride, y, its stride. P[1]: H / K, dh, window, elements a row of the cache. P[2]: scale, softcap (floats).
@group(0) @binding(4) var<storage, read> keys: array<u32>;
@group(0) @binding(5) var<storage, read> values: array<u32>;
var<workgroup> q: array<f32, $HEAD_DIM>;
var<workgroup> weight: array<f32, 64>;
var<workgroup> part: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let h = group.x;
  let t = group.y;
  let dh = $HEAD_DIM;
  let stride = P[1].w;
  let column = h / P[1].x * dh;
  let end = step.position + t + 1u;
  var begin = 0u;
  if (P[1].z > 0u && end > P[1].z) { begin = end - P[1].z; }
  for (var i = l; i < dh; i += 64u) { q[i] = ld(P[0].x + t * P[0].y + h * dh + i) * bitcast<f32>(P[2].x); }
  workgroupBarrier();
  var sums: array<f32, $SHARE>;
  for (var i = 0u; i < $SHARE; i++) { sums[i] = 0.0; }
  var highest = -3.0e38;
  var total = 0.0;
  for (var j0 = begin; j0 < end; j0 += 64u) {
    let n = min(64u, end - j0);
    var score = -3.0e38;
    if (l < n) {
      score = 0.0;
      let at = (j0 + l) * stride + column;
      for (var i = 0u; i < dh; i += $STEP) { $SCORE }
      if (P[2].y != 0u) {
        let cap = bitcast<f32>(P[2].y);
        score = cap * tanh(clamp(score / cap, -20.0, 20.0));  // some drivers' tanh overflows
      }
    }
    part[l] = score;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s >>= 1u) {
      if (l < s) { part[l] = max(part[l], part[l + s]); }
      workgroupBarrier();
    }
    let above = max(highest, part[0]);
    let shrink = exp(highest - above);
    highest = above;
    workgroupBarrier();
    var e = 0.0;
    if (l < n) { e = exp(score - highest); }
    weight[l] = e;
    part[l] = e;
    workgroupBarrier();
    for (var s = 32u; s > 0u; s >>= 1u) {
      if (l < s) { part[l] += part[l + s]; }
      workgroupBarrier();
    }
    total = total * shrink + part[0];
    for (var i = 0u; i < $SHARE; i++) {
      let d = l + i * 64u;
      if (d < dh) {
        var sum = sums[i] * shrink;
        for (var j = 0u; j < n; j++) { sum += weight[j] * value_at((j0 + j) * stride + column + d); }
        sums[i] = sum;
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < $SHARE; i++) {
    let d = l + i * 64u;
    if (d < dh) { st(P[0].z + t * P[0].w + h * dh + d, sums[i] / total); }
  }
}
