// The arena and the vectors four words at a time, where what is read begins at whole fours; single words too.
@group(0) @binding(2) var<storage, read_write> arena: array<vec4u>;
@group(0) @binding(3) var<storage, read> vectors: array<vec4u>;

fn word(at: u32) -> u32 { return arena[at >> 2u][at & 3u]; }
fn put(at: u32, w: u32) { arena[at >> 2u][at & 3u] = w; }
fn ld(at: u32) -> f32 { return bitcast<f32>(word(at)); }
fn st(at: u32, x: f32) { put(at, bitcast<u32>(x)); }
fn row4(at: u32) -> vec4f { return bitcast<vec4f>(arena[at >> 2u]); }
fn put4(at: u32, x: vec4f) { arena[at >> 2u] = bitcast<vec4u>(x); }
fn vec_word(at: u32) -> u32 { return vectors[at >> 2u][at & 3u]; }
fn vec_at(at: u32) -> f32 { return bitcast<f32>(vec_word(at)); }
fn vec4_at(at: u32) -> vec4f { return bitcast<vec4f>(vectors[at >> 2u]); }
// A binding that no text mentions would be missing from the automatic layout.
fn keep_layout() { arena[0].x = step.position + P[0].x + vectors[0].x; }
