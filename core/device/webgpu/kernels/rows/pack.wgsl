// Packs columns of x (pack_columns.wgsl). A: x, stride, packed, stride. B: K, padded K, su or none, c or none.
fn stage$N(t: u32, l: u32, first: u32, past: u32) {
  let end = min($B.y, past);
  for (var k0 = first; k0 < end; k0 += 2048u) {
    let k = k0 + l * 8u;
    e0 = ld4($A.x + t * $A.y, k, min($B.x, end));
    e1 = ld4($A.x + t * $A.y, k + 4u, min($B.x, end));
    pack_columns($A.z + t * $A.w, $B.y, $B.z, $B.w, k, end, l);
  }
}
