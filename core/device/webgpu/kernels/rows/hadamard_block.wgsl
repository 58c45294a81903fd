// x ← x · Had over blocks of $BLOCK, orthonormal.
fn hadamard$BLOCK(l: u32) {
  e0 = vec4f(e0.x + e0.y, e0.x - e0.y, e0.z + e0.w, e0.z - e0.w);
  e1 = vec4f(e1.x + e1.y, e1.x - e1.y, e1.z + e1.w, e1.z - e1.w);
  e0 = vec4f(e0.xy + e0.zw, e0.xy - e0.zw);
  e1 = vec4f(e1.xy + e1.zw, e1.xy - e1.zw);
  let low = e0;
  e0 = low + e1;
  e1 = low - e1;
  for (var s = 1u; s < $BLOCKu / 8u; s <<= 1u) {
    exchange[l] = e0;
    exchange[l + 256u] = e1;
    workgroupBarrier();
    let is_second = (l & s) != 0u;
    let other0 = exchange[l ^ s];
    let other1 = exchange[(l ^ s) + 256u];
    e0 = select(e0 + other0, other0 - e0, is_second);
    e1 = select(e1 + other1, other1 - e1, is_second);
    workgroupBarrier();
  }
  e0 *= $ROOT;
  e1 *= $ROOT;
}
