// MXFP4: 32 FP4 (e2m1) nibbles a block; behind the row's nibbles one e8m0 scale a block.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    return fp4(nibbles);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let e = byte_of(#{W}[row + (params.cols >> 3u) + (b >> 2u)], b & 3u);
    // 2^(e - 127) / 2; the two subnormal scales are taken for zero.
    let s = bitcast<f32>(select(0u, (e - 1u) << 23u, e > 1u));
    return vec4<f32>(s, s, 0.0, 0.0);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let i = row + b * 4u;
    let n = vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]);
    let lo = n & vec4<u32>(0x0f0f0f0fu);
    let hi = (n >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    let s = #{P}scales(row, b);
    return Block32(
        vec4<u32>(fp4(lo.x), fp4(lo.y), fp4(lo.z), fp4(lo.w)),
        vec4<u32>(fp4(hi.x), fp4(hi.y), fp4(hi.z), fp4(hi.w)),
        s.xy,
        s.zw,
    );
}
