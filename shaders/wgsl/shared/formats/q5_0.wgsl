// Q5_0: nibbles, then one word of fifth bits a block, then f16 scales; values minus 16.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    let high = spread4(#{W}[row + (params.cols >> 3u) + b] >> (4u * j)) << 4u;
    return less4(nibbles | high, 0x10101010u);
}

fn #{P}scales(row: u32, b: u32) -> vec4<f32> {
    let s = half_of(#{W}[row + (params.cols >> 3u) + (params.cols >> 5u) + (b >> 1u)], b & 1u);
    return vec4<f32>(s, s, 0.0, 0.0);
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
            less4(lo.x | (spread4(h >> 0u) << 4u), 0x10101010u),
            less4(lo.y | (spread4(h >> 4u) << 4u), 0x10101010u),
            less4(lo.z | (spread4(h >> 8u) << 4u), 0x10101010u),
            less4(lo.w | (spread4(h >> 12u) << 4u), 0x10101010u),
        ),
        vec4<u32>(
            less4(hi.x | (spread4(h >> 16u) << 4u), 0x10101010u),
            less4(hi.y | (spread4(h >> 20u) << 4u), 0x10101010u),
            less4(hi.z | (spread4(h >> 24u) << 4u), 0x10101010u),
            less4(hi.w | (spread4(h >> 28u) << 4u), 0x10101010u),
        ),
        s.xy,
        s.zw,
    );
}
