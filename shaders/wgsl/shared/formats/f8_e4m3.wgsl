// FP8 (e4m3fn): four a word; behind the row's bytes one f32 scale for every 128 columns.
#import shared/fp8.wgsl

fn #{P}scale(row: u32, k: u32) -> f32 {
    return bitcast<f32>(#{W}[row + ((params.cols + 3u) >> 2u) + (k >> 7u)]);
}

fn #{P}w4(row: u32, k: u32) -> vec4<f32> {
    let word = #{W}[row + (k >> 2u)];
    let bytes = vec4<u32>(word & 0xffu, (word >> 8u) & 0xffu, (word >> 16u) & 0xffu, word >> 24u);
    return e4m3(bytes) * #{P}scale(row, k);
}

fn #{P}w1(row: u32, k: u32) -> f32 {
    let byte = (#{W}[row + (k >> 2u)] >> (8u * (k & 3u))) & 0xffu;
    return e4m3(vec4<u32>(byte)).x * #{P}scale(row, k);
}
