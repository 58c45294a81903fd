// A word of a cache in float16: two elements.
fn value_at(i: u32) -> vec2f { return unpack2x16float(values[i]); }
fn key_at(i: u32) -> vec2f { return unpack2x16float(keys[i]); }
