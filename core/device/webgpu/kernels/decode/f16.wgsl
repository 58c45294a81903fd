fn load4(row: u32, k: u32) -> vec4f {
  let at = row + 2u * k;
  return vec4f(unpack2x16float(word_at(at)), unpack2x16float(word_at(at + 4u)));
}
