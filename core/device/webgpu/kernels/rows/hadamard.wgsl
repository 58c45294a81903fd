// Eight neighbours of a row in each thread, for rotations a block of inputs at a time.
var<workgroup> exchange: array<f32, 2048>;
var<private> e: array<f32, 8>;

fn sign_at(at: u32, k: u32) -> f32 { return select(-1.0, 1.0, ((vectors[at + k / 32u] >> (8u * (k & 3u) + ((k & 31u) >> 2u))) & 1u) != 0u); }
