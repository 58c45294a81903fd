// Eight neighbours of a row in each thread, for what is done a block of inputs at a time.
var<workgroup> exchange: array<vec4f, 512>;  // [2][threads]
var<private> e0: vec4f;
var<private> e1: vec4f;

// Signs of inputs k … k + 3 (k a multiple of 4), as bits of a word per 32 inputs.
fn signs_at(at: u32, k: u32) -> vec4f {
  let w = vec_word(at + k / 32u) >> ((k & 31u) >> 2u);
  return vec4f(vec4u(w, w >> 8u, w >> 16u, w >> 24u) & vec4u(1u)) * 2.0 - 1.0;
}
fn ld4(at: u32, k: u32, n: u32) -> vec4f {
  if (k + 4u <= n) { return vec4f(ld(at + k), ld(at + k + 1u), ld(at + k + 2u), ld(at + k + 3u)); }
  var x = vec4f(0.0);
  if (k < n) { x.x = ld(at + k); }
  if (k + 1u < n) { x.y = ld(at + k + 1u); }
  if (k + 2u < n) { x.z = ld(at + k + 2u); }
  return x;
}
fn st4(at: u32, k: u32, n: u32, x: vec4f) {
  if (k < n) { st(at + k, x.x); }
  if (k + 1u < n) { st(at + k + 1u, x.y); }
  if (k + 2u < n) { st(at + k + 2u, x.z); }
  if (k + 3u < n) { st(at + k + 3u, x.w); }
}
