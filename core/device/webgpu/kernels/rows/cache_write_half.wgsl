// Stores a row in float16 as token position + t of a layer's $TO, two elements a word. A: x, stride, D, elements a row of the cache.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = l * 2u; i < $A.z; i += 512u) {
    let x = $A.x + t * $A.y + i;
    var second = 0.0;
    if (i + 1u < $A.z) { second = ld(x + 1u); }
    $TO[((step.position + t) * $A.w + i) / 2u] = pack2x16float(vec2f(ld(x), second));
  }
}
