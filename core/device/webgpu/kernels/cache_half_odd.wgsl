// An element of a cache in float16 whose heads have an odd number of them.
fn value_at(i: u32) -> f32 { return unpack2x16float(values[i >> 1u])[i & 1u]; }
fn key_at(i: u32) -> f32 { return unpack2x16float(keys[i >> 1u])[i & 1u]; }
