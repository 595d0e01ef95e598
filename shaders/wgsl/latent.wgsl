// Appends [rms_norm(latent) | rope(key)] of every token to the latent cache. One workgroup a token.
#import shared/step.wgsl ACCESS=read

struct Latent {
    r: u32,
    dr: u32,
    eps: f32,
    interleaved: u32,
    tokens: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Latent;
@group(0) @binding(2) var<storage, read> kv: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;

const WG: u32 = 128u;
#import shared/reduce.wgsl
#ifndef CACHE_F32
#import shared/half.wgsl
#endif

// Element e of the key that starts at `key`, rotated.
fn rotated(key: u32, angles: u32, e: u32) -> f32 {
    let half = params.dr >> 1u;
    let interleaved = params.interleaved != 0u;
    let pair = select(e % half, e >> 1u, interleaved);
    let second = select(e >= half, (e & 1u) == 1u, interleaved);
    let a = key + select(pair, 2u * pair, interleaved);
    let b = a + select(half, 1u, interleaved);
    let angle = rope[min(angles + pair, arrayLength(&rope) - 1u)];
    return select(kv[a] * angle.x - kv[b] * angle.y, kv[b] * angle.x + kv[a] * angle.y, second);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.x;
    if (token >= token_count(params.tokens)) {
        return;
    }
    let width = params.r + params.dr;
    let start = token * width;
    let position = step.pos + token;
    let angles = position * (params.dr >> 1u);
    var squares = 0.0;
    for (var i = lid; i < params.r; i += WG) {
        let v = kv[start + i];
        squares += v * v;
    }
    let scale = 1.0 / sqrt(sum_all(lid, squares) / f32(params.r) + params.eps);
    let row = cache_row(position);
    for (var i = lid; i < (width >> 1u); i += WG) {
        let e = 2u * i;
        var v = vec2<f32>(0.0);
        if (e < params.r) {
            v = vec2<f32>(kv[start + e] * scale * weight[e], kv[start + e + 1u] * scale * weight[e + 1u]);
        } else {
            let key = start + params.r;
            v = vec2<f32>(rotated(key, angles, e - params.r), rotated(key, angles, e - params.r + 1u));
        }
#ifdef CACHE_F32
        cache[row * width + e] = bitcast<u32>(v.x);
        cache[row * width + e + 1u] = bitcast<u32>(v.y);
#else
        cache[row * (width >> 1u) + i] = f16_bits(v.x) | (f16_bits(v.y) << 16u);
#endif
    }
}
