// What every kernel begins with. `arena`: activations and scratch, words that are mostly floats. `vectors`: the model's norms, scales,
// biases and filters as floats, and signs as bits. P: what does not change from run to run, step: what does.
struct Step { position: u32, n_tokens: u32 }
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> P: array<vec4u, 32>;
@group(0) @binding(2) var<storage, read_write> arena: array<u32>;
@group(0) @binding(3) var<storage, read> vectors: array<u32>;
const kNone = 0xffffffffu;

fn ld(at: u32) -> f32 { return bitcast<f32>(arena[at]); }
fn st(at: u32, x: f32) { arena[at] = bitcast<u32>(x); }
fn vec_at(at: u32) -> f32 { return bitcast<f32>(vectors[at]); }
// A uniform buffer that no text mentions would be missing from the automatic layout.
fn keep_layout() -> u32 { return step.position + P[0].x + vectors[0]; }
