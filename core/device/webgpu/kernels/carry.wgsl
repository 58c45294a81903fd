// What the last rows of the block of 32 before give to a block's first rows of a product of planes (planes_few.wgsl leaves it): for row k,
// counted from the first of the segment that the product begins in, at eight words a block. c: where, rows before row 0, blocks a segment.
fn carry_place(c: vec4u, b: u32) -> u32 { return c.x + select(b - 1u, b + c.z - 1u, b % c.z == 0u) * 8u; }  // of block b
fn carry_at(c: vec4u, k: u32) -> f32 {
  let r = k + c.y;
  let j = r & 31u;
  if (j >= $CARRY) { return 0.0; }
  return ld(carry_place(c, r >> 5u) + j);
}
