// Q3_K: blocks of 256 in 27 words: 32 bytes of third bits, 64 of pairs, 12 of six-bit sub-scales;
// behind the row's blocks one f16 scale a block; values minus 4.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let i = row + (b >> 3u) * 27u;
    let lo = (#{W}[i + 8u + ((b & 4u) << 1u) + j] >> (2u * (b & 3u))) & 0x03030303u;
    let hi = (#{W}[i + j] >> (b & 7u)) & 0x01010101u;
    return less4(lo | (hi << 2u), 0x04040404u);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let super_block = b >> 3u;
    let d = half_of(#{W}[row + (params.cols >> 8u) * 27u + (super_block >> 1u)], super_block & 1u);
    let i = row + super_block * 27u + 24u;
    // Sub-scale n has its low four bits in nibbles of the first eight bytes and its high two in the last four.
    let word = (b & 7u) >> 1u;
    let lo = (#{W}[i + (word & 1u)] >> (4u * (word >> 1u))) & 0x0f0f0f0fu;
    let hi = (#{W}[i + 2u] >> (2u * word)) & 0x03030303u;
    let pair = (lo | (hi << 4u)) >> (16u * (b & 1u));
    let s = (vec2<f32>(vec2<u32>(pair & 0xffu, (pair >> 8u) & 0xffu)) - 32.0) * d;
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
