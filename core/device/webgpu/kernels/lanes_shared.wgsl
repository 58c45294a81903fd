// Sums of lanes where rotations exchanged their values before.
fn lane_put(i: u32, x: f32) { exchange[i >> 2u][i & 3u] = x; }
fn lane_at(i: u32) -> f32 { return exchange[i >> 2u][i & 3u]; }
