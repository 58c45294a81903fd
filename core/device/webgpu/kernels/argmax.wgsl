// The lowest id of the largest logit, for the next step to read as its token: P[0]: logits, V, ids, the answer's place.
// No number or +inf anywhere: none. −0 and +0 are equal.
var<workgroup> best: array<f32, 256>;
var<workgroup> id: array<u32, 256>;

var<private> top: f32;
var<private> at: u32;
var<private> bad: bool;
fn look(bits: u32, i: u32) {
  if (i >= P[0].y) { return; }
  // Exponents all ones: NaN, or an infinity of which only the negative one may stay.
  bad = bad || ((bits & 0x7f800000u) == 0x7f800000u && bits != 0xff800000u);
  let x = bitcast<f32>(bits);
  if (bits != 0xff800000u && (at == kNone || x > top)) {
    top = x;
    at = i;
  }
}
fn look4(w: vec4u, i: u32) {
  look(w.x, i);
  look(w.y, i + 1u);
  look(w.z, i + 2u);
  look(w.w, i + 3u);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) l: u32) {
  $KEEP
  top = -3.4028234e38;
  at = kNone;
  let first = P[0].x >> 2u;
  for (var i = l; i * 4u < P[0].y; i += 1024u) {
    let w0 = arena[first + i];
    let w1 = arena[first + i + 256u];
    let w2 = arena[first + i + 512u];
    let w3 = arena[first + i + 768u];
    look4(w0, i * 4u);
    look4(w1, (i + 256u) * 4u);
    look4(w2, (i + 512u) * 4u);
    look4(w3, (i + 768u) * 4u);
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
    put(P[0].w, chosen);
    put(P[0].z, min(chosen, P[0].y - 1u));
  }
}
