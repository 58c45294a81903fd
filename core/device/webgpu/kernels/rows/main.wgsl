// A chain of ops of which each needs its own token's row only: one workgroup a token runs them one after the other.
// Where every op of the chain needs its own columns only, a workgroup has a span of them, from `first` to `end`.
var<workgroup> part: array<f32, 256>;
