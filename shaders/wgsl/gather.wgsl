// Copies the experts that `admit` listed from the host's bank into their slots. Grid: parts of a blob, K.
#import shared/step.wgsl ACCESS=read

struct Gather {
    // Of 16 bytes, in a blob.
    quads: u32,
    // Experts in the part of the bank that is bound.
    bank_first: u32,
    bank_count: u32,
    // Slots in the slab that is bound.
    slab_first: u32,
    slab_count: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> work: array<u32>;
@group(0) @binding(3) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> slab: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    if (token_count(0u) == 0u || id.y >= work[0]) {
        return;
    }
    let expert = work[1u + 2u * id.y] - params.bank_first;
    let slot = work[2u + 2u * id.y] - params.slab_first;
    if (expert >= params.bank_count || slot >= params.slab_count) {
        return;
    }
    for (var i = id.x * 256u + lid; i < params.quads; i += groups.x * 256u) {
        slab[slot * params.quads + i] = source[expert * params.quads + i];
    }
}
