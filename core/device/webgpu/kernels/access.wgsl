// The arena and the vectors a word at a time.
@group(0) @binding(2) var<storage, read_write> arena: array<u32>;
@group(0) @binding(3) var<storage, read> vectors: array<u32>;

fn word(at: u32) -> u32 { return arena[at]; }
fn put(at: u32, w: u32) { arena[at] = w; }
fn ld(at: u32) -> f32 { return bitcast<f32>(arena[at]); }
fn st(at: u32, x: f32) { arena[at] = bitcast<u32>(x); }
fn vec_word(at: u32) -> u32 { return vectors[at]; }
fn vec_at(at: u32) -> f32 { return bitcast<f32>(vectors[at]); }
fn vec4_at(at: u32) -> vec4f { return vec4f(vec_at(at), vec_at(at + 1u), vec_at(at + 2u), vec_at(at + 3u)); }
// A binding that no text mentions would be missing from the automatic layout.
fn keep_layout() { arena[0] = step.position + P[0].x + vectors[0]; }
