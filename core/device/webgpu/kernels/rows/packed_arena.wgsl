// Packed inputs lie in the arena.
fn put_packed(at: u32, w: u32) { put(at, w); }
