// x[t] += sum over k, ascending, of weights[t][k] * y[t][k].
#import shared/step.wgsl ACCESS=read

struct Combine {
    width: u32,
    top_k: u32,
    tokens: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Combine;
// [T, K * width].
@group(0) @binding(2) var<storage, read> y: array<f32>;
// [T, K].
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.y;
    let e = id.x * 256u + lid;
    if (token >= token_count(params.tokens) || e >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < params.top_k; k++) {
        let pair = token * params.top_k + k;
        sum += weights[pair] * y[pair * params.width + e];
    }
    x[token * params.width + e] += sum;
}
