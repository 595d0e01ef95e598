// F16: two a word.
fn #{P}w1(row: u32, k: u32) -> f32 {
    return unpack2x16float(#{W}[row + (k >> 1u)] >> (16u * (k & 1u))).x;
}

fn #{P}w4(row: u32, k: u32) -> vec4<f32> {
    let i = row + (k >> 1u);
    return vec4<f32>(unpack2x16float(#{W}[i]), unpack2x16float(#{W}[i + 1u]));
}
