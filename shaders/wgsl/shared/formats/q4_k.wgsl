// Q4_K: blocks of 256 in 36 words: f16 scale and minimum, 12 bytes of sub-scales, 128 bytes of nibbles.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let i = row + (b >> 3u) * 36u + 4u + ((b & 6u) << 2u) + j;
    return (#{W}[i] >> (4u * (b & 1u))) & 0x0f0f0f0fu;
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let i = row + (b >> 3u) * 36u;
    let dm = unpack2x16float(#{W}[i]);
    // Twelve bytes: six bits of scale and of minimum for sub-blocks 0..4; those of 4..8 have four bits in the
    // last four bytes and two in the tops of the others.
    let j = b & 3u;
    let x = byte_of(#{W}[i + 1u], j);
    let y = byte_of(#{W}[i + 2u], j);
    let z = byte_of(#{W}[i + 3u], j);
    let late = (b & 4u) != 0u;
    let sc = select(x & 63u, (z & 15u) | ((x >> 6u) << 4u), late);
    let mn = select(y & 63u, (z >> 4u) | ((y >> 6u) << 4u), late);
    let s = dm.x * f32(sc);
    let m = dm.y * f32(mn);
    return vec4<f32>(s, s, m, m);
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
