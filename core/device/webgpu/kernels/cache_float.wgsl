// An element of a cache in float32.
fn value_at(i: u32) -> f32 { return bitcast<f32>(values[i]); }
fn key_at(i: u32) -> f32 { return bitcast<f32>(keys[i]); }
