// Stores a row of float32 as token position + t of a layer's $TO. A: x, stride, D, elements a row of the cache.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  for (var i = l; i < $A.z; i += 256u) { $TO[(step.position + t) * $A.w + i] = arena[$A.x + t * $A.y + i]; }
}
