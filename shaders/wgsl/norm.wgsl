// x / sqrt(mean(x^2) + eps) * weight, as f32 (OUT_F32), in 8 bits (OUT_Q8), or both. One workgroup a row.
#import shared/step.wgsl ACCESS=read

struct Norm {
    width: u32,
    eps: f32,
    tokens: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Norm;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
#ifdef OUT_F32
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
#endif
#ifdef OUT_Q8
@group(0) @binding(5) var<storage, read_write> q8: array<u32>;
#endif

const WG: u32 = 256u;
#import shared/reduce.wgsl
#ifdef OUT_Q8
#import shared/q8_block.wgsl OUT=q8
#endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (id.x >= token_count(params.tokens)) {
        return;
    }
    let start = id.x * params.width;
    var squares = 0.0;
    for (var i = lid; i < params.width; i += WG) {
        let v = x[start + i];
        squares += v * v;
    }
    let scale = 1.0 / sqrt(sum_all(lid, squares) / f32(params.width) + params.eps);
#ifdef OUT_Q8
    let words = params.width >> 2u;
    for (var base = 0u; base < words; base += WG) {
        let i = base + lid;
        var v = vec4<f32>(0.0);
        if (i < words) {
            let at = start + 4u * i;
            let g = 4u * i;
            v = vec4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]) * scale;
            v *= vec4<f32>(weight[g], weight[g + 1u], weight[g + 2u], weight[g + 3u]);
#ifdef OUT_F32
            out[at] = v.x;
            out[at + 1u] = v.y;
            out[at + 2u] = v.z;
            out[at + 3u] = v.w;
#endif
        }
        q8_block(lid, id.x * (words + (words >> 2u)), i, v);
    }
#else
    for (var i = lid; i < params.width; i += WG) {
        out[start + i] = x[start + i] * scale * weight[i];
    }
#endif
}
