// Q4_1: 32 nibbles a block; behind the row's nibbles one word a block: f16 scale, f16 minimum.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    return nibbles;
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let dm = unpack2x16float(#{W}[row + (params.cols >> 3u) + b]);
    return vec4<f32>(dm.x, dm.x, -dm.y, -dm.y);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let i = row + b * 4u;
    let n = vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]);
    let lo = n & vec4<u32>(0x0f0f0f0fu);
    let hi = (n >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    let s = #{P}scales(row, b);
    return Block32(
        vec4<u32>(lo.x, lo.y, lo.z, lo.w),
        vec4<u32>(hi.x, hi.y, hi.z, hi.w),
        s.xy,
        s.zw,
    );
}
