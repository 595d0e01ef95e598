// out = x[T - 1]. TAKEN: of a step with drafts, the last row that counts.
#import shared/step.wgsl ACCESS=read

struct LastRow {
    width: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: LastRow;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let e = id.x * 256u + lid;
    let tokens = token_count(0u);
    if (e < params.width && tokens > 0u) {
#ifdef TAKEN
        let row = min(taken_row(), tokens - 1u);
#else
        let row = tokens - 1u;
#endif
        out[e] = x[row * params.width + e];
    }
}
