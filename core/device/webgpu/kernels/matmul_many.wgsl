// y = x · Wᵀ + bias for many tokens: tiles of 32 rows by 32 tokens, decoded 16 inputs at a time; a thread has 4 × 4 of a tile.
// Parameters as matmul_few's; P[6].x: tokens.
var<workgroup> ws: array<vec4f, 160>;  // [32 rows][4 + 1]
var<workgroup> xs: array<vec4f, 160>;  // [32 tokens][4 + 1]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let n0 = (group.z * 32768u + group.x) * 32u;
  let t0 = group.y * 32u;
  let n_rows = P[1].x;
  let k_end = P[1].y;
  let n_tokens = P[6].x;
  var s0 = vec4f(0.0);  // a token each, × 4 rows
  var s1 = vec4f(0.0);
  var s2 = vec4f(0.0);
  var s3 = vec4f(0.0);
  for (var k0 = 0u; k0 < k_end; k0 += 16u) {
    for (var i = l; i < 128u; i += 64u) {
      let k = k0 + (i & 3u) * 4u;
      let n = n0 + (i >> 2u);
      let t = t0 + (i >> 2u);
      var w = vec4f(0.0);
      var x = vec4f(0.0);
      if (k < k_end) {
        let inside = vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(k_end);
        if (n < n_rows) { w = select(vec4f(0.0), load4($ROW, k), inside); }
        if (t < n_tokens) {
          let at = P[0].x + t * P[0].y + k;
          let last = k_end - 1u - k;
          x = select(vec4f(0.0), vec4f(ld(at), ld(at + min(1u, last)), ld(at + min(2u, last)), ld(at + min(3u, last))), inside);
        }
      }
      ws[(i >> 2u) * 5u + (i & 3u)] = w;
      xs[(i >> 2u) * 5u + (i & 3u)] = x;
    }
    workgroupBarrier();
    let rows = (l & 7u) * 4u;
    let tokens = (l >> 3u) * 4u;
    for (var j = 0u; j < 4u; j++) {
      let w0 = ws[rows * 5u + j];
      let w1 = ws[(rows + 1u) * 5u + j];
      let w2 = ws[(rows + 2u) * 5u + j];
      let w3 = ws[(rows + 3u) * 5u + j];
      let x0 = xs[tokens * 5u + j];
      let x1 = xs[(tokens + 1u) * 5u + j];
      let x2 = xs[(tokens + 2u) * 5u + j];
      let x3 = xs[(tokens + 3u) * 5u + j];
      s0 += vec4f(dot(w0, x0), dot(w1, x0), dot(w2, x0), dot(w3, x0));
      s1 += vec4f(dot(w0, x1), dot(w1, x1), dot(w2, x1), dot(w3, x1));
      s2 += vec4f(dot(w0, x2), dot(w1, x2), dot(w2, x2), dot(w3, x2));
      s3 += vec4f(dot(w0, x3), dot(w1, x3), dot(w2, x3), dot(w3, x3));
    }
    workgroupBarrier();
  }
  let t = t0 + (l >> 3u) * 4u;
  let n = n0 + (l & 7u) * 4u;
  store(t, n, s0);
  store(t + 1u, n, s1);
  store(t + 2u, n, s2);
  store(t + 3u, n, s3);
}

fn store(t: u32, n: u32, sums: vec4f) {
  if (t >= P[6].x) { return; }
  let y = P[0].z + t * P[0].w + P[1].w + n;
  var bias = vec4f(0.0);
  if (P[1].z != kNone) {
    let last = P[1].x - 1u;
    let b = P[1].z;
    bias = vec4f(vec_at(b + min(n, last)), vec_at(b + min(n + 1u, last)), vec_at(b + min(n + 2u, last)), vec_at(b + min(n + 3u, last)));
  }
  let out = sums + bias;
  if (n < P[1].x) { st(y, out.x); }
  if (n + 1u < P[1].x) { st(y + 1u, out.y); }
  if (n + 2u < P[1].x) { st(y + 2u, out.z); }
  if (n + 3u < P[1].x) { st(y + 3u, out.w); }
}
