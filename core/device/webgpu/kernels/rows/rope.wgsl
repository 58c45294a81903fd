// Turns pairs of each head by the table's angles. A: x, stride, y, stride. B: D, table, its stride, dh. C: pairs turned.
fn stage$N(t: u32, l: u32, first: u32, end: u32) {
  let n = $C.x;
  let table = $B.y + t * $B.z;
  for (var i = l; i < $B.x; i += 256u) {
    let head = i / $B.w * $B.w;
    let d = i - head;
    let x = $A.x + t * $A.y + head;
    var y = ld(x + d);
    if (d < 2u * n) {
      let j = $PAIR;
      let is_second = $SECOND;
      let other = ld(x + $OTHER);
      let sine = ld(table + n + j);
      y = y * ld(table + j) + select(-other, other, is_second) * sine;
    }
    st($A.z + t * $A.w + i, y);
  }
}
