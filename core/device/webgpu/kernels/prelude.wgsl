// What every kernel begins with. `arena`: activations and scratch, words that are mostly floats. `vectors`: the model's norms, scales,
// biases and filters as floats, and signs as bits. P: what does not change from run to run, step: what does.
struct Step { position: u32, n_tokens: u32, n_splits: u32 }
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> P: array<vec4u, 32>;
const kNone = 0xffffffffu;
