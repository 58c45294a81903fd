// One token's attention from the product of q, k and v on: what their blocks lack, norms of heads, turns, the cache's new rows, and softmax(scale
// · q·kᵀ, last `window` keys) · v, one workgroup a head, 256 keys at a time (online softmax, Milakov & Gimelshein 2018). The token's own key
// and value come from here, rounded as the cache has them; who goes first in a group of heads stores them. Many keys are split among
// workgroups (Flash-Decoding, Dao et al. 2023), the token itself being the first one's: attention_merge.wgsl puts together what they leave.
// Eight lanes share a key, then $LANES lanes four words of the values' each, of which the first are asked for before the scores are known.
// Unrolled in the text: see attention.wgsl.
// P[0]: q, k, v, y. P[1]: H / K, window, words of the cache a row, scale. P[2]: softcap, angles, pairs turned, eps. P[3]: norms of q and k or
// none, offset, what splits leave: [H][splits][dh + 2]. P[4], P[5], P[6]: carries of q, k and v: where or none, rows before, blocks a segment.
@group(0) @binding(4) var<storage, read_write> keys: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> values: array<vec4u>;
const dh = $DH;
const kWords = $WORDS;  // of a head's row, four at a time
const kSlices = 256u / $LANES;
const kLeast = -3.0e38;
var<workgroup> raw: array<f32, 2 * dh>;    // q, k
var<workgroup> heads: array<f32, 3 * dh>;  // q, k, v as they meet
// [256][8], in the memory that rotations use later; swizzled, since threads read the rows of it side by side.
fn sum_put(i: u32, e: u32, x: f32) { exchange[i * 2u + (((e ^ i) & 7u) >> 2u)][(e ^ i) & 3u] = x; }
fn sum_at(i: u32, e: u32) -> f32 { return exchange[i * 2u + (((e ^ i) & 7u) >> 2u)][(e ^ i) & 3u]; }
var<workgroup> weight: array<f32, 256>;
var<workgroup> most: array<f32, 16>;

fn element(at: u32, c: vec4u, k: u32) -> f32 {
  if (c.x == kNone) { return ld(at + k); }
  return ld(at + k) + carry_at(c, k);
}
// d-th element of a head after its norm (g: its gain or none) and its turn.
fn made(which: u32, g: u32, d: u32) -> f32 {
  let base = which * dh;
  var scale = 1.0;
  var gain = 1.0;
  let n = P[2].z;
  let turns = d < 2u * n;
  let j = $PAIR;
  let is_second = $SECOND;
  let o = $OTHER;
  var other_gain = 1.0;
  if (g != kNone) {
    var squares = 0.0;
    for (var i = 0u; i < dh; i++) { squares += raw[base + i] * raw[base + i]; }
    scale = 1.0 / sqrt(squares / f32(dh) + bitcast<f32>(P[2].w));
    gain = bitcast<f32>(P[3].z) + vec_at(g + d);
    if (turns) { other_gain = bitcast<f32>(P[3].z) + vec_at(g + o); }
  }
  var y = raw[base + d] * scale * gain;
  if (turns) {
    let other = raw[base + o] * scale * other_gain;
    y = y * ld(P[2].y + j) + select(-other, other, is_second) * ld(P[2].y + n + j);
  }
  return y;
}
$CACHE

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let h = group.x;
  let split = group.y;
  let t = 0u;
  let kv = h / P[1].x;
  if (l < dh) {
    raw[l] = element(P[0].x, P[4], h * dh + l);
    raw[dh + l] = element(P[0].y, P[5], kv * dh + l);
    heads[2u * dh + l] = as_stored(element(P[0].z, P[6], kv * dh + l));
  }
  workgroupBarrier();
  if (l < dh) {
    heads[l] = made(0u, P[3].x, l) * bitcast<f32>(P[1].w);
    heads[dh + l] = as_stored(made(1u, P[3].y, l));
  }
  workgroupBarrier();
  let row = P[1].z >> 2u;
  let column = kv * kWords;
  if (split == 0u && h % P[1].x == 0u && l < kWords) {
    let to = step.position * row + column + l;
    keys[to] = stored(dh + l * kElements);
    values[to] = stored(2u * dh + l * kElements);
  }
  var end = step.position;
  var begin = 0u;
  if (P[1].y > 0u && end + 1u > P[1].y) { begin = end + 1u - P[1].y; }
  if (step.n_splits > 1u) {
    let share = ((end - begin + step.n_splits - 1u) / step.n_splits + 255u) / 256u * 256u;
    begin += split * share;
    end = min(end, begin + share);
  }

  // The token itself, then those before it.
  part[l] = 0.0;
  if (l < dh) { part[l] = heads[l] * heads[dh + l]; }
  workgroupBarrier();
  if (l < 16u) {
    var s = part[l];
    $KEY_SUM
    most[l] = s;
  }
  workgroupBarrier();
  var own = 0.0;
  $KEY_ALL
  own = capped(own);
  workgroupBarrier();
  let lane = l & 7u;
  let slot = l >> 3u;
  let d = l % $LANES;
  let slice = l / $LANES;
  var highest = select(kLeast, own, split == 0u);
  var total = select(0.0, 1.0, slice == 0u && split == 0u);
  $OWN
  $Q
  for (var j0 = begin; j0 < end; j0 += 256u) {
    let n = min(256u, end - j0);
    let last = end - 1u;
    let origin = j0 + slot;
    let at = column + min(d, kWords - 1u);
    $SCORES
    workgroupBarrier();
    var score = kLeast;
    if (l < n) {
      score = capped(((sum_at(l, 0u) + sum_at(l, 1u)) + (sum_at(l, 2u) + sum_at(l, 3u))) +
                     ((sum_at(l, 4u) + sum_at(l, 5u)) + (sum_at(l, 6u) + sum_at(l, 7u))));
    }
    weight[l] = score;
    workgroupBarrier();
    if (l < 16u) {
      var m = weight[l];
      $MOST
      most[l] = m;
    }
    workgroupBarrier();
    var above = highest;
    $HIGHEST
    let shrink = exp(highest - above);
    highest = above;
    workgroupBarrier();
    weight[l] = select(0.0, exp(score - highest), l < n);
    workgroupBarrier();
    total *= shrink;
    $SHRINK
    $VALUES
    for (var j = slice + 8u * kSlices; j < n; j += 8u * kSlices) {
      $MORE_VALUES
    }
    workgroupBarrier();
  }
  // What a lane has for each of its elements, and the weights' sum.
  $REDUCE
  part[l] = total;
  workgroupBarrier();
  if (l < dh) {
    var y = 0.0;
    var all = 0.0;
    for (var s = 0u; s < kSlices; s++) {
      y += sum_at(s * $LANES + l / kElements, l % kElements);
      all += part[s * $LANES];
    }
    if (step.n_splits == 1u) {
      st(P[0].w + h * dh + l, y / all);
    } else {
      let to = P[3].w + (h * step.n_splits + split) * (dh + 2u);
      st(to + l, y);
      if (l == 0u) {
        st(to + dh, all);
        st(to + dh + 1u, highest);
      }
    }
  }
  if (step.n_splits == 1u) {
    $PACK
  }
}
fn capped(score: f32) -> f32 {
  if (P[2].x == 0u) { return score; }
  let cap = bitcast<f32>(P[2].x);
  return cap * tanh(clamp(score / cap, -20.0, 20.0));  // some drivers' tanh overflows
}
