// x̃ = c ⊙ Had(su ⊙ x) of the columns k … k + 7 in e0 and e1, in 8 bits with a scale per $BLOCK inputs: K/4 words of four, then the scales,
// then Σ x̃ of each block as rounded. A product reads chunks of $FOURS vec4u, neighbouring lanes neighbouring chunks: the first of each
// chunk, then the second of each … Columns from `end` on are zero. to: where; K: padded; su, c: or none.
fn larger(a: f32, b: f32) -> f32 {
  // max() may drop what is no number; a token with one must show it.
  return select(a + b, max(a, b), a <= 3.4028234e38 && b <= 3.4028234e38);
}
fn word_of(q: vec4i) -> u32 {
  let b = bitcast<vec4u>(q) & vec4u(255u);
  return b.x | (b.y << 8u) | (b.z << 16u) | (b.w << 24u);
}
fn pack_columns(to: u32, K: u32, su: u32, c: u32, k: u32, end: u32, l: u32) {
  let scales = to + K / 4u;
  let wholes = scales + (K + $BLOCK - 1u) / $BLOCK;
  let lanes = $BLOCK / 8u;
  if (su != kNone && k < end) {
    e0 *= signs_at(su, k);
    e1 *= signs_at(su, k + 4u);
  }
  $HADAMARD
  if (c != kNone && k < end) {
    e0 *= vec4_at(c + k);
    e1 *= vec4_at(c + k + 4u);
  }
  let a0 = abs(e0);
  let a1 = abs(e1);
  var most = larger(larger(larger(a0.x, a0.y), larger(a0.z, a0.w)), larger(larger(a1.x, a1.y), larger(a1.z, a1.w)));
  part[l] = most;
  workgroupBarrier();
  let lane0 = l / lanes * lanes;
  $MOST
  workgroupBarrier();
  let scale = most / 127.0;
  let inverse = select(0.0, 1.0 / scale, scale > 1.0e-37);
  let q0 = vec4i(round(clamp(e0 * inverse, vec4f(-127.0), vec4f(127.0))));
  let q1 = vec4i(round(clamp(e1 * inverse, vec4f(-127.0), vec4f(127.0))));
  let both = q0 + q1;
  part[l] = f32(both.x + both.y + both.z + both.w);
  workgroupBarrier();
  if (k < end) {
    let four = k >> 4u;
    let at = to + (four % $FOURS * (K / (16u * $FOURS)) + four / $FOURS) * 4u + ((k >> 2u) & 2u);
    put_packed(at, word_of(q0));
    put_packed(at + 1u, word_of(q1));
    if (l == lane0) {
      var whole = 0.0;
      $WHOLE
      put_packed(scales + k / $BLOCK, bitcast<u32>(scale));
      put_packed(wholes + k / $BLOCK, bitcast<u32>(scale * whole));
    }
  }
  workgroupBarrier();
}
