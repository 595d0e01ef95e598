// F32: one word a weight.
fn #{P}w1(row: u32, k: u32) -> f32 {
    return bitcast<f32>(#{W}[row + k]);
}

fn #{P}w4(row: u32, k: u32) -> vec4<f32> {
    let i = row + k;
    return bitcast<vec4<f32>>(vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]));
}
