// Q5_1: nibbles, then one word of fifth bits a block, then one word a block: f16 scale, f16 minimum.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    let high = spread4(#{W}[row + (params.cols >> 3u) + b] >> (4u * j)) << 4u;
    return nibbles | high;
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let dm = unpack2x16float(#{W}[row + (params.cols >> 3u) + (params.cols >> 5u) + b]);
    return vec4<f32>(dm.x, dm.x, -dm.y, -dm.y);
}

fn #{P}block32(row: u32, b: u32) -> Block32 {
    let i = row + b * 4u;
    let n = vec4<u32>(#{W}[i], #{W}[i + 1u], #{W}[i + 2u], #{W}[i + 3u]);
    let lo = n & vec4<u32>(0x0f0f0f0fu);
    let hi = (n >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    let s = #{P}scales(row, b);
    let h = #{W}[row + (params.cols >> 3u) + b];
    return Block32(
        vec4<u32>(
            lo.x | (spread4(h >> 0u) << 4u),
            lo.y | (spread4(h >> 4u) << 4u),
            lo.z | (spread4(h >> 8u) << 4u),
            lo.w | (spread4(h >> 12u) << 4u),
        ),
        vec4<u32>(
            hi.x | (spread4(h >> 16u) << 4u),
            hi.y | (spread4(h >> 20u) << 4u),
            hi.z | (spread4(h >> 24u) << 4u),
            hi.w | (spread4(h >> 28u) << 4u),
        ),
        s.xy,
        s.zw,
    );
}
