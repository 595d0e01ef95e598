// Looks the slots of a routing up again, after the host has moved experts: slots[t][k] = table[ids[t][k]].
#import shared/step.wgsl ACCESS=read

struct Place {
    top_k: u32,
    tokens: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Place;
// [T, K].
@group(0) @binding(2) var<storage, read> ids: array<u32>;
// [E]: the slot of every expert to work on now; none for the others.
@group(0) @binding(3) var<storage, read> table: array<u32>;
// [T, K].
@group(0) @binding(4) var<storage, read_write> slots: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < token_count(params.tokens) * params.top_k) {
        slots[id.x] = table[ids[id.x]];
    }
}
