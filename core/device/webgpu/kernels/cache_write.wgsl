// A layer's cache, written. Both are named, so that the layout has both.
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<u32>;
fn keep_cache() { keys[0] = values[0]; }
