// A product of one set of planes with few tokens (docs/formats.md §1): one-bit products z[n][p] = Σ_k S_p[n,k] · x̃[k] with x̃ in 8 bits, as
// pack.wgsl leaves it, then the filter over z down the rows. A workgroup has 32 rows: sixteen lanes a pair of rows. Rows that the filter
// reaches in the next block get what this block gives them by way of the carry (carry.wgsl).
// With bits as 0 and 1, Σ ±x = 2 Σ bit·x − Σ x. Bits are masked in place: four products of one bit each, then a shift of four.
// P[0]: packed x, its stride, y, its stride. P[1]: N, rows of the segments before y's, blocks before, first row in W. P[2]: sv, 1 to add, bias
// or none, sums of squares (columns.wgsl). P[3]: carry, its stride, blocks a segment, how many sums, or 0. P[4]: 1/D, eps. From P[5] on the
// filter. From P[8] on what comes before, where the input is made here (columns.wgsl), by every workgroup for itself.
@group(0) @binding(4) var<storage, read> W: array<$WORDS>;
const kChunks = $CHUNKS;  // $WORDS a row of a plane
const kScales = $SCALES;  // words of packed x before them
const kWholes = $WHOLES;
$LANES_AT
var<workgroup> z: array<f32, 32 * $PLANES>;
var<workgroup> squares: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let block = group.z * 32768u + group.x;  // of 32 rows
  let t = group.y;
  let lane = l & 15u;
  let pair = l >> 4u;
  let row = (P[1].w + block * 32u + pair * 2u) * $PLANES * kChunks;
  let x = P[0].x + t * P[0].y;
  // What the filter's rows need, early: row l of this block, or of the next what comes from here.
  let b = P[1].z + block;  // from the first segment on
  let next = select(b + 1u, b + 1u - P[3].z, (b + 1u) % P[3].z == 0u);
  let is_row = l < 32u;
  let r = select(next * 32u + l - 32u, b * 32u + l, is_row);
  let n = r - P[1].y;
  let is_mine = l < 40u && (!is_row || n < P[1].x);
  let to = select(P[3].x + t * P[3].y + b * 8u + l - 32u, P[0].z + t * P[0].w + n, is_row);
  var scale_out = 0.0;
  var before = 0.0;
  if (is_mine) {
    scale_out = vec_at(P[2].x + r);
    if (P[2].y != 0u) { before = ld(to); }
    if (P[2].z != kNone && is_row) { before += vec_at(P[2].z + n); }
  }
  if (l < P[3].w) { squares[l] = ld(P[2].w + t * P[3].w + l); }
  $PROLOGUE
  $SUMS
  var whole = 0.0;
  for (var c = lane; c < kChunks; c += 16u) {
    $LOADS
    $PRODUCTS
  }
  $LANES
  workgroupBarrier();
  for (var i = l; i < 32u * $PLANES; i += 256u) {
    var sum = 0.0;
    $REDUCE
    z[i] = sum;
  }
  workgroupBarrier();
  if (is_mine) {
    var y = 0.0;
    $FILTER
    if (P[3].w > 0u) {
      var sum = 0.0;
      for (var i = 0u; i < P[3].w; i++) { sum += squares[i]; }
      y *= 1.0 / sqrt(sum * bitcast<f32>(P[4].x) + bitcast<f32>(P[4].y));
    }
    st(to, y * scale_out + before);
  }
}
