// Ops of which each needs its own columns only, for few tokens: a thread has eight columns of a token in registers from the first load to the
// packed input of the product behind. Values are pairs of vec4f. A norm leaves its division to that product, which gets the sums of squares. Small inputs are made
// by the product itself: planes_few.wgsl has the same body then, and 256 threads.
const kColumns = $COLUMNS;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) l: u32) {
  $KEEP
  let t = group.y;
  let k = (group.x * 64u + l) * 8u;
  $BODY
}
