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
  var sums: array<vec4f, 4>;  // [4 tokens] × 4 rows
  for (var i = 0u; i < 4u; i++) { sums[i] = vec4f(0.0); }
  for (var k0 = 0u; k0 < k_end; k0 += 16u) {
    for (var i = l; i < 128u; i += 64u) {
      let k = k0 + (i & 3u) * 4u;
      let n = n0 + (i >> 2u);
      let t = t0 + (i >> 2u);
      var w = vec4f(0.0);
      var x = vec4f(0.0);
      if (k < k_end) {
        let inside = vec4u(k) + vec4u(0u, 1u, 2u, 3u) < vec4u(k_end);
        if (n < n_rows) { w = select(vec4f(0.0), $LOAD($ROW, k), inside); }
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
      for (var i = 0u; i < 4u; i++) {
        let x = xs[(tokens + i) * 5u + j];
        sums[i] += vec4f(dot(w0, x), dot(w1, x), dot(w2, x), dot(w3, x));
      }
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 4u; i++) {
    let t = t0 + (l >> 3u) * 4u + i;
    for (var j = 0u; j < 4u; j++) {
      let n = n0 + (l & 7u) * 4u + j;
      if (t < n_tokens && n < n_rows) {
        var y = sums[i][j];
        if (P[1].z != kNone) { y += vec_at(P[1].z + n); }
        st(P[0].z + t * P[0].w + P[1].w + n, y);
      }
    }
  }
}
