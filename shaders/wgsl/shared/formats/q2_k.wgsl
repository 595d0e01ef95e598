// Q2_K: blocks of 256 in 21 words: 16 bytes of four-bit scales and minima, 64 bytes of pairs, f16 scale and
// minimum.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let i = row + (b >> 3u) * 21u + 4u + ((b & 4u) << 1u) + j;
    return (#{W}[i] >> (2u * (b & 3u))) & 0x03030303u;
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let i = row + (b >> 3u) * 21u;
    let dm = unpack2x16float(#{W}[i + 20u]);
    let pair = #{W}[i + ((b & 7u) >> 1u)] >> (16u * (b & 1u));
    let s = vec2<f32>(vec2<u32>(pair & 15u, (pair >> 8u) & 15u)) * dm.x;
    let m = vec2<f32>(vec2<u32>((pair >> 4u) & 15u, (pair >> 12u) & 15u)) * dm.y;
    return vec4<f32>(s, m);
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
