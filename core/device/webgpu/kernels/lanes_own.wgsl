// Sums of lanes: an array of their own.
var<workgroup> lanes: array<f32, 32 * $PLANES * 16>;
fn lane_put(i: u32, x: f32) { lanes[i] = x; }
fn lane_at(i: u32) -> f32 { return lanes[i]; }
