// Q8_0: 32 signed bytes a block; behind the row's bytes one f16 scale a block.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    return #{W}[row + b * 8u + j];
}

fn #{P}s(row: u32, b: u32) -> f32 {
    return half_of(#{W}[row + (params.cols >> 2u) + (b >> 1u)], b & 1u);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let s = #{P}s(row, b);
    return vec4<f32>(s, s, 0.0, 0.0);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let i = row + b * 8u;
    return Block32(
        vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]),
        vec4<u32>(#{W}[i + 4u], #{W}[i + 5u], #{W}[i + 6u], #{W}[i + 7u]),
        vec2<f32>(#{P}s(row, b)),
        vec2<f32>(0.0),
    );
}
