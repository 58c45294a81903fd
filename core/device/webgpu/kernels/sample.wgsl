// Draws the next token in place of the likeliest, which argmax.wgsl has left: temperature, top-k, top-p, min-p, then a mark in [0, 1) laid into
// the weights of what is kept, in the order of ids (core/runtime/sampler.cc is the reference). One workgroup; logits become weights.
// What is dropped lies below a bound, which is found sixteen candidates at a time: the largest key from which on keys make up the wanted
// count or mass. Of equals the lowest ids stay.
// P[0]: logits, V, ids, the answer's place. P[1]: temperature, top-k or 0, top-p, min-p. P[2]: mark.
var<workgroup> halves: array<vec4f, 512>;  // [128][4]
var<workgroup> before: array<f32, 256>;
var<workgroup> bound: u32;

/// A float's bits as a number of the same order; −0 is +0.
fn order_of(bits: u32) -> u32 {
  let b = select(bits, 0u, bits == 0x80000000u);
  return select(b | 0x80000000u, ~b, b >= 0x80000000u);
}
/// Σ x of all lanes, in every lane.
fn sum_of_lanes(l: u32, x: f32) -> f32 {
  before[l] = x;
  workgroupBarrier();
  for (var n = 128u; n > 0u; n >>= 1u) {
    if (l < n) { before[l] += before[l + n]; }
    workgroupBarrier();
  }
  let sum = before[0];
  workgroupBarrier();
  return sum;
}
/// Leaves Σ x of the lanes up to each in `before`; the sum of those before this one.
fn sum_before(l: u32, x: f32) -> f32 {
  before[l] = x;
  workgroupBarrier();
  for (var n = 1u; n < 256u; n <<= 1u) {
    var more = 0.0;
    if (l >= n) { more = before[l - n]; }
    workgroupBarrier();
    before[l] += more;
    workgroupBarrier();
  }
  return select(before[max(l, 1u) - 1u], 0.0, l == 0u);
}
/// A key of element i, whose bits are given, and what it adds: one where keys are logits', its weight where they are weights'.
fn key_of(bits: u32, is_weight: bool) -> u32 { return select(order_of(bits), bits, is_weight); }
fn worth_of(bits: u32, is_weight: bool) -> f32 { return select(1.0, bitcast<f32>(bits), is_weight); }

var<private> s0: vec4f;
var<private> s1: vec4f;
var<private> s2: vec4f;
var<private> s3: vec4f;
fn from_on(edges: vec4f, n: f32, worth: f32) -> vec4f { return select(vec4f(0.0), vec4f(worth), vec4f(n) >= edges); }
fn weigh(i: u32, bits: u32, is_weight: bool, base: u32, shift: u32) {
  let key = key_of(bits, is_weight);
  if (i >= P[0].y || key < base) { return; }
  let worth = worth_of(bits, is_weight);
  let n = f32(min((key - base) >> shift, 15u));
  s0 += from_on(vec4f(1.0, 2.0, 3.0, 4.0), n, worth);
  s1 += from_on(vec4f(5.0, 6.0, 7.0, 8.0), n, worth);
  s2 += from_on(vec4f(9.0, 10.0, 11.0, 12.0), n, worth);
  s3 += from_on(vec4f(13.0, 14.0, 15.0, 16.0), n, worth);
}
fn how_many(sums: vec4f, wanted: f32) -> u32 {
  let n = select(vec4u(0u), vec4u(1u), sums >= vec4f(wanted));
  return n.x + n.y + n.z + n.w;
}

/// The largest key so that what the keys from it on add is `wanted` at least.
fn find_bound(l: u32, is_weight: bool, wanted: f32) -> u32 {
  let first = P[0].x >> 2u;
  var base = 0u;
  for (var digit = 0u; digit < 8u; digit++) {
    let shift = 28u - 4u * digit;
    s0 = vec4f(0.0);
    s1 = vec4f(0.0);
    s2 = vec4f(0.0);
    s3 = vec4f(0.0);
    for (var i = l; i * 4u < P[0].y; i += 256u) {
      let four = arena[first + i];
      weigh(i * 4u, four.x, is_weight, base, shift);
      weigh(i * 4u + 1u, four.y, is_weight, base, shift);
      weigh(i * 4u + 2u, four.z, is_weight, base, shift);
      weigh(i * 4u + 3u, four.w, is_weight, base, shift);
    }
    for (var n = 128u; n > 0u; n >>= 1u) {
      if (l >= n && l < 2u * n) {
        let to = (l - n) * 4u;
        halves[to] = s0;
        halves[to + 1u] = s1;
        halves[to + 2u] = s2;
        halves[to + 3u] = s3;
      }
      workgroupBarrier();
      if (l < n) {
        s0 += halves[l * 4u];
        s1 += halves[l * 4u + 1u];
        s2 += halves[l * 4u + 2u];
        s3 += halves[l * 4u + 3u];
      }
      workgroupBarrier();
    }
    // The sixteenth candidate is nobody's: no key reaches it.
    if (l == 0u) { bound = base + ((how_many(s0, wanted) + how_many(s1, wanted) + how_many(s2, wanted) + how_many(s3, wanted)) << shift); }
    workgroupBarrier();
    base = bound;
    workgroupBarrier();
  }
  return base;
}
/// What the keys above `key` add.
fn sum_above(l: u32, is_weight: bool, key: u32, begin: u32, end: u32) -> f32 {
  var sum = 0.0;
  for (var i = begin; i < end; i++) {
    let bits = word(P[0].x + i);
    if (key_of(bits, is_weight) > key) { sum += worth_of(bits, is_weight); }
  }
  return sum_of_lanes(l, sum);
}
/// How many keys of ids before this lane's equal `key`.
fn equals_before(l: u32, is_weight: bool, key: u32, begin: u32, end: u32) -> f32 {
  var n = 0.0;
  for (var i = begin; i < end; i++) {
    if (key_of(word(P[0].x + i), is_weight) == key) { n += 1.0; }
  }
  return sum_before(l, n);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) l: u32) {
  $KEEP
  let V = P[0].y;
  let likeliest = word(P[0].w);
  let top = ld(P[0].x + min(likeliest, V - 1u));
  workgroupBarrier();
  let share = (V + 1023u) / 1024u * 4u;  // ids of a lane, neighbours in whole vectors: writing a part of one may write all of it
  let begin = min(l * share, V);
  let end = min(begin + share, V);

  var bar = 0u;
  var n_equal = f32(V);  // how many at the bar stay
  if (P[1].y > 0u && P[1].y < V) {
    bar = find_bound(l, false, f32(P[1].y));
    n_equal = f32(P[1].y) - sum_above(l, false, bar, begin, end);
  }
  var equals = equals_before(l, false, bar, begin, end);
  workgroupBarrier();
  var sum = 0.0;
  for (var i = begin; i < end; i++) {
    let bits = word(P[0].x + i);
    let key = order_of(bits);
    var is_kept = key > bar;
    if (key == bar) {
      is_kept = equals < n_equal;
      equals += 1.0;
    }
    var weight = 0.0;
    if (is_kept && bits != 0xff800000u) { weight = exp((bitcast<f32>(bits) - top) / bitcast<f32>(P[1].x)); }
    st(P[0].x + i, weight);
    sum += weight;
  }
  let all = sum_of_lanes(l, sum);
  storageBarrier();
  workgroupBarrier();

  bar = 0u;
  n_equal = f32(V);
  let top_p = bitcast<f32>(P[1].z);
  if (top_p < 1.0) {
    bar = find_bound(l, true, top_p * all);
    let above = sum_above(l, true, bar, begin, end);
    n_equal = max(1.0, ceil((top_p * all - above) / max(bitcast<f32>(bar), 1.0e-37)));
  }
  equals = equals_before(l, true, bar, begin, end);
  workgroupBarrier();
  sum = 0.0;
  for (var i = begin; i < end; i++) {
    let bits = word(P[0].x + i);
    var is_kept = bits > bar;
    if (bits == bar) {
      is_kept = equals < n_equal;
      equals += 1.0;
    }
    if (!is_kept || bitcast<f32>(bits) < bitcast<f32>(P[1].w)) { st(P[0].x + i, 0.0); }
    else { sum += bitcast<f32>(bits); }
  }
  let low = sum_before(l, sum);
  let high = before[l];
  let mark = bitcast<f32>(P[2].x) * before[255];
  if (low <= mark && mark < high && likeliest < V) {
    var chosen = likeliest;
    var reached = low;
    for (var i = begin; i < end && reached <= mark; i++) {
      let weight = ld(P[0].x + i);
      reached += weight;
      if (weight > 0.0) { chosen = i; }
    }
    put(P[0].w, chosen);
    put(P[0].z, chosen);
  }
}
