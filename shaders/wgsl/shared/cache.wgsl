// Reading rows of the latent cache by pairs of elements: `Pair` as stored, `pair_value` as f32.
#ifdef CACHE_F32
alias Pair = vec2<f32>;

fn pair_value(p: Pair) -> vec2<f32> {
    return p;
}

// Pair i of a row of `pairs` pairs.
fn cache_pair(row: u32, pairs: u32, i: u32) -> Pair {
    let at = (row * pairs + i) * 2u;
    return bitcast<vec2<f32>>(vec2<u32>(cache[at], cache[at + 1u]));
}
#else
alias Pair = u32;

fn pair_value(p: Pair) -> vec2<f32> {
    return unpack2x16float(p);
}

// Pair i of a row of `pairs` pairs.
fn cache_pair(row: u32, pairs: u32, i: u32) -> Pair {
    return cache[row * pairs + i];
}
#endif
