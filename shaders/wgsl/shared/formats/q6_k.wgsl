// Q6_K: blocks of 256 in 52 words: 128 bytes of low nibbles, 64 of high pairs, 16 signed sub-scales;
// behind the row's blocks one f16 scale a block; values minus 32.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let i = row + (b >> 3u) * 52u;
    let n = (b >> 2u) & 1u;
    let lo = (#{W}[i + n * 16u + (b & 1u) * 8u + j] >> (2u * (b & 2u))) & 0x0f0f0f0fu;
    let hi = (#{W}[i + 32u + n * 8u + j] >> (2u * (b & 3u))) & 0x03030303u;
    return less4(lo | (hi << 4u), 0x20202020u);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let super_block = b >> 3u;
    let d = half_of(#{W}[row + (params.cols >> 8u) * 52u + (super_block >> 1u)], super_block & 1u);
    let pair = #{W}[row + super_block * 52u + 48u + ((b & 7u) >> 1u)] >> (16u * (b & 1u));
    let s = vec2<f32>(vec2<i32>(vec2<u32>(pair << 24u, pair << 16u)) >> vec2<u32>(24u)) * d;
    return vec4<f32>(s, 0.0, 0.0);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let s = #{P}scales(row, b);
    return Block32(
        vec4<u32>(#{P}q4(row, b, 0u), #{P}q4(row, b, 1u), #{P}q4(row, b, 2u), #{P}q4(row, b, 3u)),
        vec4<u32>(#{P}q4(row, b, 4u), #{P}q4(row, b, 5u), #{P}q4(row, b, 6u), #{P}q4(row, b, 7u)),
        s.xy,
        s.zw,
    );
}
