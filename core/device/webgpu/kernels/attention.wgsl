// softmax(scale · q·kᵀ, causal, last `window` keys) · v, one workgroup a head and token, 256 keys at a time (online softmax, Milakov &
// Gimelshein 2018): a thread scores one key; then $LANES threads sum a word of the head's elements each, over the keys of their slice.
// Loops are unrolled in the text: some compilers bound every loop with a counter and then unroll none.
// P[0]: q, its stride, y, its stride. P[1]: H / K, dh, window, elements a row of the cache. P[2]: scale, softcap (floats).
@group(0) @binding(4) var<storage, read> keys: array<u32>;
@group(0) @binding(5) var<storage, read> values: array<u32>;
const kWords = $WORDS;  // of a head's row: $WORD elements each
var<workgroup> q: array<$ELEMENTS, kWords>;
var<workgroup> weight: array<f32, 256>;
var<workgroup> slices: array<$ELEMENTS, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let h = group.x;
  let t = group.y;
  let stride = P[1].w / $WORD;
  let column = h / P[1].x * kWords;
  let end = step.position + t + 1u;
  var begin = 0u;
  if (P[1].z > 0u && end > P[1].z) { begin = end - P[1].z; }
  let x = P[0].x + t * P[0].y + h * P[1].y;
  if (l < kWords) { q[l] = $LOAD_Q * bitcast<f32>(P[2].x); }
  workgroupBarrier();
  let d = l % $LANES;
  let slice = l / $LANES;
  var sum = $ELEMENTS();
  var highest = -3.0e38;
  var total = 0.0;
  for (var j0 = begin; j0 < end; j0 += 256u) {
    let n = min(256u, end - j0);
    var score = -3.0e38;
    if (l < n) {
      score = 0.0;
      let at = (j0 + l) * stride + column;
      for (var i = 0u; i < kWords; i += $UNROLL) {
        $SCORE
      }
      if (P[2].y != 0u) {
        let cap = bitcast<f32>(P[2].y);
        score = cap * tanh(clamp(score / cap, -20.0, 20.0));  // some drivers' tanh overflows
      }
    }
    part[l] = score;
    workgroupBarrier();
    for (var s = 128u; s > 0u; s >>= 1u) {
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
    for (var s = 128u; s > 0u; s >>= 1u) {
      if (l < s) { part[l] += part[l + s]; }
      workgroupBarrier();
    }
    total = total * shrink + part[0];
    sum *= shrink;
    if (d < kWords) {
      let at = j0 * stride + column + d;
      // Past the last key the weight is 0, and the key is any that is there.
      for (var j = slice; j < n; j += 4u * kSlices) {
        let j1 = j + kSlices;
        let j2 = j1 + kSlices;
        let j3 = j2 + kSlices;
        let last = n - 1u;
        let v0 = value_at(at + j * stride);
        let v1 = value_at(at + min(j1, last) * stride);
        let v2 = value_at(at + min(j2, last) * stride);
        let v3 = value_at(at + min(j3, last) * stride);
        sum += weight[j] * v0;
        if (j1 < n) { sum += weight[j1] * v1; }
        if (j2 < n) { sum += weight[j2] * v2; }
        if (j3 < n) { sum += weight[j3] * v3; }
      }
    }
    workgroupBarrier();
  }
  slices[l] = sum;
  workgroupBarrier();
  for (var s = 128u; s >= $LANES; s >>= 1u) {
    if (l < s) { slices[l] += slices[l + s]; }
    workgroupBarrier();
  }
  if (l < kWords) {
    let y = slices[l] / total;
    let to = P[0].z + t * P[0].w + h * P[1].y;
    $STORE_Y
  }
  $PACK
}
const kSlices = 256u / $LANES;
