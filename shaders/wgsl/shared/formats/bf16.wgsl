// BF16: two a word, each the upper half of an f32.
fn #{P}w1(row: u32, k: u32) -> f32 {
    let word = #{W}[row + (k >> 1u)];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (k & 1u) == 1u));
}

fn #{P}w4(row: u32, k: u32) -> vec4<f32> {
    let a = #{W}[row + (k >> 1u)];
    let b = #{W}[row + (k >> 1u) + 1u];
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
