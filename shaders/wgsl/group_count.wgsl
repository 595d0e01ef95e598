// How many pairs (token, k) chose the expert in each slot.
#import shared/group.wgsl

@group(0) @binding(3) var<storage, read_write> counts: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (id.x >= params.slots) {
        return;
    }
    let pairs = token_count(params.tokens) * params.top_k;
    let all = sum_to(lid, count_mine(lid, id.x, pairs));
    if (lid == WG - 1u) {
        counts[id.x] = all;
    }
}
