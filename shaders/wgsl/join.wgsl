// out[t] = [a[t] | b[t]].
#import shared/step.wgsl ACCESS=read

struct Join {
    n: u32,
    m: u32,
    tokens: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Join;
// [T, n].
@group(0) @binding(2) var<storage, read> a: array<f32>;
// [T, m].
@group(0) @binding(3) var<storage, read> b: array<f32>;
// [T, n + m].
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let token = id.y;
    let e = id.x * 256u + lid;
    if (token >= token_count(params.tokens) || e >= params.n + params.m) {
        return;
    }
    let at = token * (params.n + params.m) + e;
    if (e < params.n) {
        out[at] = a[token * params.n + e];
    } else {
        out[at] = b[token * params.m + e - params.n];
    }
}
