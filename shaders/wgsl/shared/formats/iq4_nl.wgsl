// IQ4_NL: 32 nibbles that index a codebook; behind the row's nibbles one f16 scale a block.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    return iq4(nibbles);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let s = half_of(#{W}[row + (params.cols >> 3u) + (b >> 1u)], b & 1u);
    return vec4<f32>(s, s, 0.0, 0.0);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let i = row + b * 4u;
    let n = vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]);
    let lo = n & vec4<u32>(0x0f0f0f0fu);
    let hi = (n >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    let s = #{P}scales(row, b);
    return Block32(
        vec4<u32>(iq4(lo.x), iq4(lo.y), iq4(lo.z), iq4(lo.w)),
        vec4<u32>(iq4(hi.x), iq4(hi.y), iq4(hi.z), iq4(hi.w)),
        s.xy,
        s.zw,
    );
}
