// x ← x · Had over blocks of $BLOCK, orthonormal.
fn hadamard$BLOCK(l: u32) {
  for (var s = 1u; s < 8u; s <<= 1u) {
    for (var i = 0u; i < 8u; i++) {
      if ((i & s) == 0u) {
        let a = e[i];
        let b = e[i + s];
        e[i] = a + b;
        e[i + s] = a - b;
      }
    }
  }
  for (var s = 1u; s < $BLOCKu / 8u; s <<= 1u) {
    for (var i = 0u; i < 8u; i++) { exchange[i * 256u + l] = e[i]; }
    workgroupBarrier();
    for (var i = 0u; i < 8u; i++) {
      let other = exchange[i * 256u + (l ^ s)];
      e[i] = select(e[i] + other, other - e[i], (l & s) != 0u);
    }
    workgroupBarrier();
  }
  for (var i = 0u; i < 8u; i++) { e[i] *= $ROOT; }
}
