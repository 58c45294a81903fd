// The lowest id of the largest logit, for the next step to read as its token: P[0]: logits, V, ids, the answer's place.
// No number or +inf anywhere: none. −0 and +0 are equal.
var<workgroup> best: array<f32, 256>;
var<workgroup> id: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) l: u32) {
  $KEEP
  var top = -3.4028234e38;
  var at = kNone;
  var bad = false;
  for (var i = l; i < P[0].y; i += 256u) {
    let bits = arena[P[0].x + i];
    // Exponents all ones: NaN, or an infinity of which only the negative one may stay.
    bad = bad || ((bits & 0x7f800000u) == 0x7f800000u && bits != 0xff800000u);
    let x = bitcast<f32>(bits);
    if (bits != 0xff800000u && (at == kNone || x > top)) {
      top = x;
      at = i;
    }
  }
  best[l] = top;
  id[l] = select(at, kNone - 1u, bad);
  workgroupBarrier();
  for (var s = 128u; s > 0u; s >>= 1u) {
    if (l < s) {
      let other = id[l + s];
      let mine = id[l];
      if (other == kNone - 1u || mine == kNone - 1u) {
        id[l] = kNone - 1u;
      } else if (other != kNone && (mine == kNone || best[l + s] > best[l] || (best[l + s] == best[l] && other < mine))) {
        best[l] = best[l + s];
        id[l] = other;
      }
    }
    workgroupBarrier();
  }
  if (l == 0u) {
    let chosen = select(id[0], kNone, id[0] == kNone - 1u);
    arena[P[0].w] = chosen;
    arena[P[0].z] = min(chosen, P[0].y - 1u);
  }
}
