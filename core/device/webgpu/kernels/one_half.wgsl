// A cache in float16: eight elements in a vec4u.
const kElements = 8u;
fn as_stored(x: f32) -> f32 { return unpack2x16float(pack2x16float(vec2f(x, 0.0))).x; }
fn stored(i: u32) -> vec4u {
  return vec4u(pack2x16float(vec2f(heads[i], heads[i + 1u])), pack2x16float(vec2f(heads[i + 2u], heads[i + 3u])),
               pack2x16float(vec2f(heads[i + 4u], heads[i + 5u])), pack2x16float(vec2f(heads[i + 6u], heads[i + 7u])));
}
fn low(w: vec4u) -> vec4f { return vec4f(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn high(w: vec4u) -> vec4f { return vec4f(unpack2x16float(w.z), unpack2x16float(w.w)); }
