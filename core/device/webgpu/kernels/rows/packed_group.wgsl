// Packed inputs lie in the workgroup's memory, whose product they are for.
var<workgroup> packed: array<vec4u, $FOURS>;
fn put_packed(at: u32, w: u32) { packed[at >> 2u][at & 3u] = w; }
fn packed_at(at: u32) -> u32 { return packed[at >> 2u][at & 3u]; }
