// A cache in float16: two elements a word.
fn value_at(i: u32) -> f32 { return unpack2x16float(values[i >> 1u])[i & 1u]; }
fn key_at(i: u32) -> f32 { return unpack2x16float(keys[i >> 1u])[i & 1u]; }
