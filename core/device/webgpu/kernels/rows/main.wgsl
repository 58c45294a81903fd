// A chain of ops of which each needs its own token's row only: one workgroup a token runs them one after the other.
var<workgroup> part: array<f32, 256>;
