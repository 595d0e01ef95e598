// IQ4_XS: blocks of 256 in 34 words: f16 scale, 16 bits and four bytes of six-bit sub-scales, 128 bytes of
// nibbles that index the codebook.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let i = row + (b >> 3u) * 34u + 2u + ((b & 7u) << 2u) + (j & 3u);
    return iq4((#{W}[i] >> (4u * (j >> 2u))) & 0x0f0f0f0fu);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let i = row + (b >> 3u) * 34u;
    let head = #{W}[i];
    let n = b & 7u;
    let sc = ((#{W}[i + 1u] >> (4u * n)) & 15u) | (((head >> (16u + 2u * n)) & 3u) << 4u);
    let s = half_of(head, 0u) * (f32(sc) - 32.0);
    return vec4<f32>(s, s, 0.0, 0.0);
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
