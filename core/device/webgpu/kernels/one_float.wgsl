// A cache in float32: four elements in a vec4u.
const kElements = 4u;
fn as_stored(x: f32) -> f32 { return x; }
fn stored(i: u32) -> vec4u { return bitcast<vec4u>(vec4f(heads[i], heads[i + 1u], heads[i + 2u], heads[i + 3u])); }
fn low(w: vec4u) -> vec4f { return bitcast<vec4f>(w); }
