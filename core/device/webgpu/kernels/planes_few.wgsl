// One-bit products for few tokens: z[t][n][p] = Σ_k S_p[n,k] · x̃[t,k] with x̃ in 8 bits, a scale per $BLOCK inputs, as rows/pack.wgsl leaves
// it. With bits as 0 and 1, Σ ±x = 2 Σ bit·x − Σ x. Bits are masked in place: four products of one bit each, then a shift of four.
// P[0]: packed x, its stride, z, its stride. P[1]: rows, words a row, first row of z (in rows), first row here.
@group(0) @binding(4) var<storage, read> W: array<u32>;
var<workgroup> part: array<vec4f, 128>;

fn products(w: u32, a: vec4u, b: vec4u) -> f32 {
  let s0 = dot4I8Packed(w & 0x01010101u, a.x) + dot4I8Packed((w >> 4u) & 0x01010101u, b.x);
  let s1 = dot4I8Packed(w & 0x02020202u, a.y) + dot4I8Packed((w >> 4u) & 0x02020202u, b.y);
  let s2 = dot4I8Packed(w & 0x04040404u, a.z) + dot4I8Packed((w >> 4u) & 0x04040404u, b.z);
  let s3 = dot4I8Packed(w & 0x08080808u, a.w) + dot4I8Packed((w >> 4u) & 0x08080808u, b.w);
  return f32(s0 + (s1 >> 1u) + (s2 >> 2u) + (s3 >> 3u));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let lane = l & 15u;
  let n = (group.z * 32768u + group.x) * 8u + (l >> 4u);
  let n_words = P[1].y;
  let x = P[0].x + group.y * P[0].y;
  let scales = x + n_words * 8u;
  let wholes = scales + (n_words * 32u + $BLOCK - 1u) / $BLOCK;
  var sums = vec4f(0.0);
  if (n < P[1].x) {
    let row = (P[1].w + n) * $PLANES * n_words;
    for (var j = lane; j < n_words; j += 16u) {
      let at = x + j * 8u;
      let a = vec4u(arena[at], arena[at + 1u], arena[at + 2u], arena[at + 3u]);
      let b = vec4u(arena[at + 4u], arena[at + 5u], arena[at + 6u], arena[at + 7u]);
      let block = j * 32u / $BLOCK;
      let scale = 2.0 * ld(scales + block);
      let whole = select(0.0, ld(wholes + block), j * 32u % $BLOCK == 0u);
      sums += scale * vec4f($PRODUCTS) - whole;
    }
  }
  part[l] = sums;
  workgroupBarrier();
  for (var s = 8u; s > 0u; s >>= 1u) {
    if (lane < s) { part[l] += part[l + s]; }
    workgroupBarrier();
  }
  if (lane < $PLANES && n < P[1].x) { st(P[0].z + group.y * P[0].w + (P[1].z + n) * $PLANES + lane, part[l & 112u][lane]); }
}
