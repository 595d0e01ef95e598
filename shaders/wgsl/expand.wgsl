// The rows first .. first + count of the latent cache as f32: latents and rope keys apart. Rows that are not yet
// written become 0.
#import shared/step.wgsl ACCESS=read

struct Expand {
    r: u32,
    dr: u32,
    first: u32,
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Expand;
@group(0) @binding(2) var<storage, read> cache: array<u32>;
@group(0) @binding(3) var<storage, read_write> latents: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<f32>;

#import shared/cache.wgsl

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let n = id.x;
    if (n >= params.count) {
        return;
    }
    let position = params.first + n;
    let there = position < step.pos + step.tokens;
    let row = cache_row(position);
    let pairs = (params.r + params.dr) >> 1u;
    for (var i = lid; i < pairs; i += 64u) {
        var v = vec2<f32>(0.0);
        if (there) {
            v = pair_value(cache_pair(row, pairs, i));
        }
        let e = 2u * i;
        if (e < params.r) {
            latents[n * params.r + e] = v.x;
            latents[n * params.r + e + 1u] = v.y;
        } else {
            keys[n * params.dr + e - params.r] = v.x;
            keys[n * params.dr + e - params.r + 1u] = v.y;
        }
    }
}
