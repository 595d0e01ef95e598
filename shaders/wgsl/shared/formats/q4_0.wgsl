// Q4_0: 32 nibbles minus 8 a block; behind the row's nibbles one f16 scale a block.
#import shared/block.wgsl

fn #{P}q4(row: u32, b: u32, j: u32) -> u32 {
    let nibbles = (#{W}[row + b * 4u + (j & 3u)] >> (4u * (j >> 2u))) & 0x0f0f0f0fu;
    return less4(nibbles, 0x08080808u);
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
        vec4<u32>(less4(lo.x, 0x08080808u), less4(lo.y, 0x08080808u), less4(lo.z, 0x08080808u), less4(lo.w, 0x08080808u)),
        vec4<u32>(less4(hi.x, 0x08080808u), less4(hi.y, 0x08080808u), less4(hi.z, 0x08080808u), less4(hi.w, 0x08080808u)),
        s.xy,
        s.zw,
    );
}
