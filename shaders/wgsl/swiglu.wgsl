// out = silu(gate) * up.
#import shared/step.wgsl ACCESS=read
#import shared/math.wgsl

struct Swiglu {
    width: u32,
    tokens: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Swiglu;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> up: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let e = id.x * 256u + lid;
    if (id.y >= token_count(params.tokens) || e >= params.width) {
        return;
    }
    let i = id.y * params.width + e;
    out[i] = silu(gate[i]) * up[i];
}
